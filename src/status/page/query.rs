//! What is asked of a list: `?search=…&state=…&reason=…&job=…&page=…`.
//!
//! Whoever writes such a URL by hand is never refused: what is not understood asks for nothing.

use url::form_urlencoded;

/// The question. Empty texts ask for everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    /// Words, in lower case, that must all be there.
    pub(super) words: Vec<String>,
    /// The same as it was typed.
    pub(super) search: String,
    pub(super) state: String,
    pub(super) reason: String,
    pub(super) job: String,
    /// Counted from 1.
    pub(super) page: usize,
}

impl Query {
    /// Reads the part of a URL behind its question mark.
    pub(super) fn read(text: Option<&str>) -> Self {
        let mut query = Self { page: 1, ..Self::default() };
        for (name, value) in form_urlencoded::parse(text.unwrap_or_default().as_bytes()) {
            match &*name {
                "search" => {
                    query.words = value.to_lowercase().split_whitespace().map(ToOwned::to_owned).collect();
                    query.search = value.trim().to_owned();
                }
                "state" => query.state = value.into_owned(),
                "reason" => query.reason = value.into_owned(),
                "job" => query.job = value.into_owned(),
                "page" => query.page = value.parse().unwrap_or(1).max(1),
                _ => {}
            }
        }
        query
    }

    /// Whether anything narrows the list.
    pub(super) fn narrows(&self) -> bool {
        !(self.words.is_empty() && self.state.is_empty() && self.reason.is_empty() && self.job.is_empty())
    }

    /// Whether all words are in what `say` puts together, whatever the case.
    pub(super) fn finds(&self, say: impl FnOnce(&mut String)) -> bool {
        if self.words.is_empty() {
            return true;
        }
        let mut text = String::new();
        say(&mut text);
        let text = text.to_lowercase();
        self.words.iter().all(|word| text.contains(word.as_str()))
    }

    /// The URL of `path` with the same question for another page of the answer.
    pub(super) fn url(&self, path: &str, page: usize) -> String {
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        let page = if page > 1 { page.to_string() } else { String::new() };
        let all = [
            ("search", &self.search),
            ("state", &self.state),
            ("reason", &self.reason),
            ("job", &self.job),
            ("page", &page),
        ];
        for (name, value) in all.into_iter().filter(|(_, value)| !value.is_empty()) {
            pairs.append_pair(name, value);
        }
        match pairs.finish() {
            none if none.is_empty() => path.to_owned(),
            some => format!("{path}?{some}"),
        }
    }
}

/// A question for one state and, where it is given, one reason and one job.
pub(super) fn link(path: &str, state: &str, reason: &str, job: &str) -> String {
    let query = Query { state: state.to_owned(), reason: reason.to_owned(), job: job.to_owned(), ..Query::default() };
    query.url(path, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_survives_its_own_url() {
        let text = "search=Cart+%26+co&state=down&reason=timeout&job=a%2Fb&page=3&other=1";
        let query = Query::read(Some(text));
        assert_eq!((query.words.join("|"), query.page), ("cart|&|co".to_owned(), 3));
        let url = query.url("/targets", 3);
        assert_eq!(url, "/targets?search=Cart+%26+co&state=down&reason=timeout&job=a%2Fb&page=3");
        assert_eq!(Query::read(url.split_once('?').map(|(_, query)| query)), query);
        assert_eq!(Query::read(None).url("/targets", 1), "/targets");
        for odd in ["page=0", "page=-1", "page=x", "page=99999999999999999999", "%ff=%ff&&=;"] {
            assert_eq!(Query::read(Some(odd)).page, 1, "{odd}");
        }
    }

    #[test]
    fn all_words_must_be_there_in_any_case() {
        let finds = |search: &str| {
            let query = Query::read(Some(&format!("search={search}")));
            query.finds(|text| text.push_str("spiffe://cluster.local/ns/Shop/sa/cart 10.0.0.17:15092"))
        };
        assert!(finds("") && finds("SHOP") && finds("cart+10.0") && !finds("cart+payments"));
    }
}
