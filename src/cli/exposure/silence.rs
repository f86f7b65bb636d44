//! Plaintext ports that nobody answers on from here: where packets to them are dropped, as a NetworkPolicy does it, each pod
//! would take the whole time of a connection and tell nothing new.
//!
//! Always holds: once anybody has answered on a port, if only by refusing, it is asked of every pod, because then it is not this
//! process that is kept in; and until then some pods of each namespace are asked, because policies are a namespace's own.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::connect::PlainAnswer;
use crate::model::{Failure, Reason};

/// After how many pods of a namespace without an answer a port is given up there.
pub(in crate::cli) const ENOUGH: usize = 8;

/// What is known of the ports of all pods so far.
#[derive(Debug, Default)]
pub(super) struct Silence {
    ports: Mutex<BTreeMap<u16, Heard>>,
}

#[derive(Debug, Default)]
struct Heard {
    /// Somebody answered, somewhere.
    something: bool,
    /// How many pods of a namespace did not.
    silent: BTreeMap<String, usize>,
    /// It was not asked of some pod.
    was_given_up: bool,
}

impl Silence {
    /// Takes note of how a pod answered.
    pub(super) fn note(&self, port: u16, namespace: &str, outcome: &Result<PlainAnswer, Failure>) {
        let is_silent = matches!(
            outcome,
            Err(failure) if matches!(failure.reason, Reason::ConnectTimeout | Reason::Timeout)
        );
        let mut ports = self.lock();
        let heard = ports.entry(port).or_default();
        match is_silent {
            true => *heard.silent.entry(namespace.to_owned()).or_default() += 1,
            false => heard.something = true,
        }
    }

    /// Whether the port is not to be asked of another pod of this namespace; who asks goes by the answer.
    pub(super) fn gives_up(&self, port: u16, namespace: &str) -> bool {
        let mut ports = self.lock();
        let Some(heard) = ports.get_mut(&port) else { return false };
        let given_up = !heard.something && heard.silent.get(namespace).is_some_and(|pods| *pods >= ENOUGH);
        heard.was_given_up |= given_up;
        given_up
    }

    /// The ports that were not asked of every pod.
    pub(super) fn given_up(&self) -> Vec<u16> {
        self.lock().iter().filter(|(_, heard)| heard.was_given_up).map(|(port, _)| *port).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u16, Heard>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent() -> Result<PlainAnswer, Failure> {
        Err(Failure::new(Reason::ConnectTimeout, "nothing came"))
    }

    #[test]
    fn a_port_is_given_up_in_a_namespace_of_which_some_pods_did_not_answer() {
        let silence = Silence::default();
        for _ in 1..ENOUGH {
            silence.note(15020, "shop", &silent());
            assert!(!silence.gives_up(15020, "shop"));
        }
        silence.note(15020, "shop", &silent());
        assert_eq!(silence.given_up(), [0_u16; 0], "nobody was left out yet");
        assert!(silence.gives_up(15020, "shop"));
        assert!(!silence.gives_up(15090, "shop") && !silence.gives_up(15020, "bank"));
        assert_eq!(silence.given_up(), [15020]);
        // Where somebody answers, it is the pods of the one namespace that are kept in, and not this process.
        silence.note(15020, "bank", &Ok(PlainAnswer::Status(200)));
        assert!(!silence.gives_up(15020, "shop"));
        assert_eq!(silence.given_up(), [15020], "who was left out is not forgotten");
    }

    #[test]
    fn a_port_on_which_anybody_answered_is_never_given_up() {
        for answer in [
            Ok(PlainAnswer::Status(403)),
            Ok(PlainAnswer::Closed),
            Err(Failure::new(Reason::ConnectRefused, "refused")),
        ] {
            let silence = Silence::default();
            silence.note(15020, "shop", &answer);
            for _ in 0..2 * ENOUGH {
                silence.note(15020, "shop", &silent());
            }
            assert!(!silence.gives_up(15020, "shop"), "{answer:?}");
        }
    }
}
