//! What may be shown of an error of the client library.
//!
//! The library's own texts hold whatever was at hand: the whole output of a program that fetches credentials, with its
//! arguments and variables, and the lines of a kubeconfig around a mistake. What always holds: neither is passed on,
//! however deep inside an error it stands; everything else is, with its causes, each said once, and cleaned.

use std::error::Error;

use kube::client::AuthError;
use kube::config::KubeconfigError;

use crate::model::clean_to;

/// How much is shown.
const SHOWN_BYTES: usize = 1024;

/// An error of the client library in words that are safe to show.
pub fn client_error(error: &(dyn Error + 'static)) -> String {
    if let Some(words) = links(error).find_map(secretive) {
        return words;
    }
    let mut text = error.to_string();
    for link in links(error).skip(1) {
        let words = link.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
    }
    clean_to(&text, SHOWN_BYTES).into_owned()
}

/// The error and all that it came from.
fn links<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&link| link.source())
}

/// Our words for an error whose own would hold secrets.
fn secretive(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(KubeconfigError::Parse(error)) = error.downcast_ref() {
        let place = error.location().map(|place| format!(", see line {}, column {}", place.line(), place.column()));
        return Some(format!("it cannot be read as a kubeconfig{}", place.unwrap_or_default()));
    }
    match error.downcast_ref()? {
        AuthError::AuthExecRun { out, .. } => Some(format!(
            "the program that fetches credentials failed ({}); what it printed may hold them and is not shown, so run \
             it by hand as the kubeconfig has it",
            out.status
        )),
        AuthError::AuthExecParse(_) => {
            Some("what the program that fetches credentials printed is no ExecCredential, and is not shown".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{ExitStatus, Output};

    use kube::config::Kubeconfig;

    use super::*;

    const CANARY: &str = "canary-of-a-plugin";

    /// What the library makes of a plugin that printed `CANARY` everywhere.
    fn failed() -> AuthError {
        let out = Output { status: ExitStatus::from_raw(3 << 8), stdout: CANARY.into(), stderr: CANARY.into() };
        AuthError::AuthExecRun { cmd: format!("TOKEN={CANARY} plugin"), out: Box::new(out) }
    }

    #[test]
    fn what_a_plugin_printed_is_not_shown_however_it_is_wrapped() {
        for error in [kube::Error::Auth(failed()), kube::Error::Service(failed().into())] {
            assert!(error.to_string().contains(CANARY), "the library shows it: {error}");
            let said = client_error(&error);
            assert!(said.contains("failed (exit status: 3)"), "{said}");
            assert!(!said.contains(CANARY), "{said}");
        }
    }

    #[test]
    fn the_lines_around_a_mistake_in_a_kubeconfig_are_not_shown() {
        let text = format!("users:\n- name: u\n  user:\n    token: {CANARY}\n    exec: {CANARY}\n");
        let error = Kubeconfig::from_yaml(&text).expect_err("exec is a mapping");
        let said = client_error(&error);
        assert!(!said.contains(CANARY), "{said}");
        assert!(said.starts_with("it cannot be read as a kubeconfig, see line "), "{said}");
    }

    #[test]
    fn causes_are_said_once() {
        let missing = std::io::Error::new(std::io::ErrorKind::NotFound, "no such \u{1b} thing");
        let said = client_error(&kube::Error::Auth(AuthError::AuthExecStart(missing)));
        assert_eq!(said.matches("thing").count(), 1, "{said}");
        assert!(said.contains("unable to run auth exec") && said.contains("\\u{1b}"), "{said}");
    }
}
