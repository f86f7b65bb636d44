//! A watch as the API server streams it, read without any library's recovery: what ends is seen to end.

use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::Value;

/// An open watch.
pub(crate) struct Watch {
    body: Body,
    unread: Vec<u8>,
}

impl Watch {
    /// Opens a watch on `path`, which has its whole query; gives the status when the server refuses.
    pub(crate) async fn open(client: &Client, path: &str) -> Result<Self, u16> {
        let request = http::Request::get(path).body(Body::empty()).expect("a request");
        let response = client.send(request).await.expect("an answer");
        match response.status().as_u16() {
            200 => Ok(Self { body: response.into_body(), unread: Vec::new() }),
            refused => Err(refused),
        }
    }

    /// The next event, `{"type": …, "object": …}`; None when the stream has ended, however it did.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("an event"));
            }
            let frame = self.body.frame().await?.ok()?;
            self.unread.extend_from_slice(&frame.into_data().ok()?);
        }
    }
}
