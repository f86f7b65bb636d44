//! A long list, a hundred rows at a time.

use maud::{Markup, html};

use super::query::Query;
use super::words::count;

/// How many rows a page has.
pub(super) const ROWS: usize = 100;

/// One page of a list.
pub(super) struct Slice<T> {
    /// What is on it.
    pub(super) rows: Vec<T>,
    /// How many there are on all pages.
    pub(super) all: usize,
    page: usize,
}

impl<T> Slice<T> {
    /// The page that is asked for, or the last one.
    pub(super) fn of(list: Vec<T>, query: &Query) -> Self {
        let all = list.len();
        let page = query.page.min(pages(all));
        let rows = list.into_iter().skip((page - 1) * ROWS).take(ROWS).collect();
        Self { rows, all, page }
    }

    /// `1–100 of 4,987`.
    pub(super) fn range(&self) -> String {
        let first = (self.page - 1) * ROWS + 1;
        match self.rows.len() {
            0 => "none".to_owned(),
            rows if rows == self.all => format!("all {}", count(self.all as u64)),
            rows => {
                format!("{}–{} of {}", count(first as u64), count((first + rows - 1) as u64), count(self.all as u64))
            }
        }
    }

    /// The ways to the other pages; nothing where there is one only.
    pub(super) fn ways(&self, path: &str, query: &Query) -> Markup {
        let (page, last) = (self.page, pages(self.all));
        html! {
            @if last > 1 {
                nav.pager aria-label="Pages" {
                    @if page > 1 {
                        a href=(query.url(path, 1)) { "First" }
                        a rel="prev" href=(query.url(path, page - 1)) { "Previous" }
                    }
                    span aria-current="page" { "Page " (page) " of " (last) }
                    @if page < last {
                        a rel="next" href=(query.url(path, page + 1)) { "Next" }
                        a href=(query.url(path, last)) { "Last" }
                    }
                }
            }
        }
    }
}

fn pages(all: usize) -> usize {
    all.div_ceil(ROWS).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_on_one_page() {
        let slice = |all: usize, page: usize| Slice::of((0..all).collect(), &Query { page, ..Query::default() });
        for all in [0, 1, 99, 100, 101, 250] {
            let seen: Vec<usize> = (1..=pages(all)).flat_map(|page| slice(all, page).rows).collect();
            assert_eq!(seen, (0..all).collect::<Vec<_>>());
        }
        assert_eq!((slice(0, 1).range(), slice(7, 1).range()), ("none".to_owned(), "all 7".to_owned()));
        assert_eq!(
            (slice(5_000, 2).range(), slice(250, 99).range()),
            ("101–200 of 5,000".to_owned(), "201–250 of 250".to_owned())
        );
        assert_eq!(slice(100, 1).ways("/", &Query::default()).into_string(), "");
        let ways = slice(250, 2).ways("/t", &Query { state: "down".to_owned(), ..Query::default() }).into_string();
        assert!(ways.contains("href=\"/t?state=down&amp;page=3\"") && ways.contains("Page 2 of 3"), "{ways}");
    }
}
