//! How the last scrapes of a target went: a ring for the sparkline of the status page.
//!
//! It holds the newest 32 scrapes in 132 bytes a target, whatever else happens. Durations are kept to a tenth of a
//! millisecond; nothing here knows what they are drawn as.

use std::time::Duration;

/// How many scrapes are remembered.
const KEPT: usize = 32;
/// The bit that says that a scrape failed.
const FAILED: u32 = 1 << 31;

/// The newest scrapes of a target, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    /// Tenths of a millisecond, and [`FAILED`].
    ring: [u32; KEPT],
    /// How many of them are filled.
    filled: u8,
    /// Where the next one goes.
    next: u8,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// How long it took.
    pub duration: Duration,
    /// Whether it succeeded.
    pub ok: bool,
}

impl Recent {
    /// Remembers one more, in place of the oldest if there is no room.
    pub(super) fn push(&mut self, beat: Beat) {
        let tenths = u32::try_from(beat.duration.as_micros() / 100).unwrap_or(u32::MAX).min(FAILED - 1);
        self.ring[usize::from(self.next)] = if beat.ok { tenths } else { tenths | FAILED };
        self.next = (self.next + 1) % KEPT as u8;
        self.filled = (self.filled + 1).min(KEPT as u8);
    }

    /// All of them.
    pub fn beats(&self) -> impl ExactSizeIterator<Item = Beat> + '_ {
        let (filled, next) = (usize::from(self.filled), usize::from(self.next));
        (0..filled).map(move |at| {
            let value = self.ring[(next + KEPT - filled + at) % KEPT];
            Beat { duration: Duration::from_micros(u64::from(value & !FAILED) * 100), ok: value & FAILED == 0 }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(millis: u64, ok: bool) -> Beat {
        Beat { duration: Duration::from_millis(millis), ok }
    }

    #[test]
    fn the_newest_are_kept_in_their_order() {
        let mut recent = Recent::default();
        assert_eq!(recent.beats().len(), 0);
        for millis in 0..5 {
            recent.push(beat(millis, millis != 3));
        }
        let seen: Vec<Beat> = recent.beats().collect();
        assert_eq!(seen, [beat(0, true), beat(1, true), beat(2, true), beat(3, false), beat(4, true)]);
        for millis in 5..40 {
            recent.push(beat(millis, true));
        }
        let seen: Vec<Beat> = recent.beats().collect();
        assert_eq!((seen.len(), seen[0], seen[31]), (32, beat(8, true), beat(39, true)));
    }

    #[test]
    fn a_duration_never_makes_a_success_a_failure() {
        let mut recent = Recent::default();
        recent.push(Beat { duration: Duration::MAX, ok: true });
        let seen: Vec<Beat> = recent.beats().collect();
        assert!(seen[0].ok && seen[0].duration > Duration::from_secs(200_000));
        assert!(size_of::<Recent>() <= 132, "{} bytes", size_of::<Recent>());
    }
}
