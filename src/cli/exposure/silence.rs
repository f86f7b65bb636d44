//! Plaintext ports that nobody answers on from here: where packets to them are dropped, as a NetworkPolicy does it, each pod
//! would take the whole time of a connection and tell nothing new.
//!
//! Always holds: a port that anybody has answered on, if only by refusing, is never given up.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::connect::PlainAnswer;
use crate::model::{Failure, Reason};

/// After how many pods without an answer a port is given up.
pub(in crate::cli) const ENOUGH: usize = 8;

/// What is known of the ports of all pods so far.
#[derive(Debug, Default)]
pub(super) struct Silence {
    ports: Mutex<BTreeMap<u16, Heard>>,
}

#[derive(Debug)]
enum Heard {
    /// So many pods were asked, and nothing came.
    Nothing(usize),
    Something,
}

impl Silence {
    /// Takes note of how a pod answered.
    pub(super) fn note(&self, port: u16, outcome: &Result<PlainAnswer, Failure>) {
        let is_silent = matches!(
            outcome,
            Err(failure) if matches!(failure.reason, Reason::ConnectTimeout | Reason::Timeout)
        );
        let mut ports = self.lock();
        let heard = ports.entry(port).or_insert(Heard::Nothing(0));
        match heard {
            Heard::Nothing(pods) if is_silent => *pods += 1,
            Heard::Nothing(_) => *heard = Heard::Something,
            Heard::Something => {}
        }
    }

    /// Whether the port is not to be asked any more.
    pub(super) fn gives_up(&self, port: u16) -> bool {
        self.lock().get(&port).is_some_and(Heard::is_enough)
    }

    /// All such ports.
    pub(super) fn given_up(&self) -> Vec<u16> {
        self.lock().iter().filter(|(_, heard)| heard.is_enough()).map(|(port, _)| *port).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u16, Heard>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    fn is_enough(&self) -> bool {
        matches!(self, Heard::Nothing(pods) if *pods >= ENOUGH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent() -> Result<PlainAnswer, Failure> {
        Err(Failure::new(Reason::ConnectTimeout, "nothing came"))
    }

    #[test]
    fn a_port_is_given_up_after_some_pods_without_an_answer() {
        let silence = Silence::default();
        for _ in 1..ENOUGH {
            silence.note(15020, &silent());
            assert!(!silence.gives_up(15020));
        }
        silence.note(15020, &silent());
        assert!(silence.gives_up(15020) && !silence.gives_up(15090));
        assert_eq!(silence.given_up(), [15020]);
    }

    #[test]
    fn a_port_on_which_anybody_answered_is_never_given_up() {
        for answer in [
            Ok(PlainAnswer::Status(403)),
            Ok(PlainAnswer::Closed),
            Err(Failure::new(Reason::ConnectRefused, "refused")),
        ] {
            let silence = Silence::default();
            silence.note(15020, &answer);
            for _ in 0..2 * ENOUGH {
                silence.note(15020, &silent());
            }
            assert_eq!(silence.given_up(), [0_u16; 0], "{answer:?}");
        }
    }
}
