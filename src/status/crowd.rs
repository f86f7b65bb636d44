//! Who is served at once: a bounded number of connections, and room in it for everybody who comes.
//!
//! Nobody waits for a place, so a probe is not late because somebody holds connections. Where all places are taken, the
//! oldest connection of the address that has most of them loses its own: whoever takes places by the hundred takes them from
//! himself, also where others come from his address. It must not know what is said on a connection.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};

use tokio_util::sync::CancellationToken;

/// All places.
pub(super) struct Crowd {
    most: usize,
    /// In the order in which they came.
    places: Vec<Weak<Place>>,
}

/// Held by a connection for as long as it counts.
pub(super) struct Place {
    from: IpAddr,
    lost: CancellationToken,
}

impl Place {
    /// Comes when the place is needed for somebody else.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Crowd {
    /// So many places, at least one.
    pub(super) fn of(most: usize) -> Self {
        Self { most, places: Vec::new() }
    }

    /// A place for who comes from this address.
    pub(super) fn place(&mut self, from: IpAddr) -> Arc<Place> {
        self.places.retain(|place| place.strong_count() > 0);
        if self.places.len() >= self.most {
            self.make_room();
        }
        let place = Arc::new(Place { from, lost: CancellationToken::new() });
        self.places.push(Arc::downgrade(&place));
        place
    }

    fn make_room(&mut self) {
        let address = |place: &Weak<Place>| place.upgrade().map(|place| place.from);
        let mut counts = HashMap::<IpAddr, usize>::new();
        for from in self.places.iter().filter_map(address) {
            *counts.entry(from).or_default() += 1;
        }
        let most = counts.values().max().copied();
        let oldest = self.places.iter().position(|place| match address(place) {
            Some(from) => counts.get(&from).copied() == most,
            // It left a moment ago, so there is room.
            None => true,
        });
        if let Some(place) = oldest.and_then(|index| self.places.remove(index).upgrade()) {
            place.lost.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn is_lost(place: &Place) -> bool {
        place.lost.is_cancelled()
    }

    #[test]
    fn the_oldest_of_the_address_with_most_makes_room() {
        let mut crowd = Crowd::of(4);
        let neighbour = crowd.place(address(1));
        let greedy: Vec<_> = (0..30).map(|_| crowd.place(address(2))).collect();
        let kubelet = crowd.place(address(3));
        assert!(!is_lost(&neighbour) && !is_lost(&kubelet));
        let left: Vec<_> = greedy.iter().map(|place| is_lost(place)).collect();
        assert_eq!(left, [[true; 28].as_slice(), &[false; 2]].concat(), "the newest two of thirty");
        assert_eq!(crowd.places.len(), 4);
    }

    #[test]
    fn of_those_who_have_equally_many_the_oldest_makes_room() {
        let mut crowd = Crowd::of(3);
        let all: Vec<_> = (1..=4).map(|last| crowd.place(address(last))).collect();
        assert_eq!(all.iter().map(|place| is_lost(place)).collect::<Vec<_>>(), [true, false, false, false]);
    }

    #[test]
    fn a_place_that_was_left_is_free_and_nobody_loses_his() {
        let mut crowd = Crowd::of(2);
        let stays = crowd.place(address(1));
        drop(crowd.place(address(1)));
        let comes = crowd.place(address(2));
        assert!(!is_lost(&stays) && !is_lost(&comes));
    }
}
