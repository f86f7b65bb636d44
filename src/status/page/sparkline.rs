//! The last scrapes of a target as a small picture, with the same in words.
//!
//! A bar is as high as the scrape was long, in proportion to the longest of them; a failed one hangs from the top,
//! so that nothing depends on colour. The words are the picture's name for whoever does not see it.

use std::time::Duration;

use maud::{Markup, html};

use super::words::{counted, took};
use crate::scrape::{Beat, Recent};

/// Pixels from one bar to the next.
const STEP: usize = 4;
/// Pixels of the longest bar.
const HEIGHT: usize = 20;
/// Pixels of the mark of a failed one.
const FAILED: usize = 8;

/// The picture.
pub(super) fn sparkline(recent: &Recent) -> Markup {
    let beats: Vec<Beat> = recent.beats().collect();
    let longest = longest(&beats);
    let width = 32 * STEP;
    let first = 32 - beats.len().min(32);
    html! {
        @if beats.is_empty() {
            span.muted { "not scraped yet" }
        } @else {
            svg.spark role="img" aria-label=(in_words(&beats)) viewBox=(format!("0 0 {width} {HEIGHT}")) width=(width) height=(HEIGHT) {
                rect.ground x="0" y=(HEIGHT - 1) width=(width - 1) height="1" {}
                @for (at, beat) in beats.iter().enumerate() {
                    @let x = (first + at) * STEP;
                    @if beat.ok {
                        @let high = height(beat.duration, longest);
                        rect.ok x=(x) y=(HEIGHT - high) width=(STEP - 1) height=(high) {}
                    } @else {
                        rect.failed x=(x) y="0" width=(STEP - 1) height=(FAILED) {}
                    }
                }
            }
        }
    }
}

fn longest(beats: &[Beat]) -> Duration {
    beats.iter().filter(|beat| beat.ok).map(|beat| beat.duration).max().unwrap_or_default()
}

/// At least two pixels, so that there is something to see.
fn height(duration: Duration, longest: Duration) -> usize {
    let share = duration.as_secs_f64() / longest.as_secs_f64().max(f64::MIN_POSITIVE);
    ((share * HEIGHT as f64) as usize).clamp(2, HEIGHT)
}

/// `Last 32 scrapes: 2 failed, the longest took 12 ms`.
pub(super) fn in_words(beats: &[Beat]) -> String {
    let failed = beats.iter().filter(|beat| !beat.ok).count();
    let scrapes = counted(beats.len(), "scrape");
    let how = match failed {
        0 => "none failed".to_owned(),
        _ if failed == beats.len() => return format!("Last {scrapes}: all failed"),
        _ => format!("{failed} failed"),
    };
    format!("Last {scrapes}: {how}, the longest took {}", took(longest(beats)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_say_what_the_picture_shows() {
        let beat = |millis, ok| Beat { duration: Duration::from_millis(millis), ok };
        assert_eq!(in_words(&[beat(3, true)]), "Last 1 scrape: none failed, the longest took 3.0 ms");
        assert_eq!(in_words(&[beat(3, true), beat(90, false)]), "Last 2 scrapes: 1 failed, the longest took 3.0 ms");
        assert_eq!(in_words(&[beat(3, false)]), "Last 1 scrape: all failed");
        assert_eq!(
            [0, 1, 50, 100].map(|millis| height(Duration::from_millis(millis), Duration::from_millis(100))),
            [2, 2, 10, 20]
        );
        assert_eq!(height(Duration::ZERO, Duration::ZERO), 2);
    }
}
