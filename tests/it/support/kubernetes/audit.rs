//! What the API server wrote down about the requests it got: the truth about who asked what, whatever the client says.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    /// `system:serviceaccount:NAMESPACE:NAME` for a service account, empty for nobody.
    pub(crate) user: String,
    /// `get`, `list`, `watch`, …; a streaming list is a watch.
    pub(crate) verb: String,
    /// Path and query as they came.
    pub(crate) uri: String,
    pub(crate) user_agent: String,
    /// None while no answer is written down, which is a moment after the client has it; a watch has one as soon as it
    /// streams.
    pub(crate) status: Option<u16>,
}

/// Reads the server's log.
pub(super) fn read(log: &Path) -> Vec<Asked> {
    let text = std::fs::read_to_string(log).expect("the audit log");
    let whole_lines = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    let mut asked: Vec<Asked> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for line in whole_lines.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        // A request is written down when it comes, and again when it is answered.
        let at = *places.entry(text(&event["auditID"])).or_insert_with(|| {
            let user = text(&event["user"]["username"]);
            let (verb, uri) = (text(&event["verb"]), text(&event["requestURI"]));
            asked.push(Asked { user, verb, uri, user_agent: text(&event["userAgent"]), status: None });
            asked.len() - 1
        });
        if let Some(code) = event["responseStatus"]["code"].as_u64() {
            asked[at].status = u16::try_from(code).ok();
        }
    }
    asked
}
