//! What a watch brings: lines, and in each an event.
//!
//! Nothing is kept here but the part of a line that has come. What always holds: a line has a bound; half a line at the
//! end is no event, because it comes again.

use std::collections::HashMap;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use kube::client::Body;
use memchr::memchr;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::discover::kubernetes::access::ApiError;
use crate::discover::kubernetes::object::{Object, ObjectKey};
use crate::model::clean;

/// The largest event: etcd takes objects of up to 1.5 MiB.
pub(super) const MAX_EVENT_BYTES: usize = 16 << 20;

/// The lines of a watch.
pub(super) struct Events {
    body: Body,
    buffer: BytesMut,
}

impl Events {
    /// The lines of this body.
    pub(super) fn of(body: Body) -> Self {
        Self { body, buffer: BytesMut::new() }
    }

    /// The next line; `None` at the end. `count` is told of all bytes that arrive.
    pub(super) async fn next(&mut self, count: impl Fn(usize)) -> Result<Option<Bytes>, ApiError> {
        loop {
            if let Some(end) = memchr(b'\n', &self.buffer) {
                let line = self.buffer.split_to(end).freeze();
                self.buffer.advance(1);
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(Some(line));
            }
            if self.buffer.len() > MAX_EVENT_BYTES {
                return Err(ApiError::Broken(format!("has an event of more than {} MiB", MAX_EVENT_BYTES >> 20)));
            }
            match self.body.frame().await {
                // Half an event at the end was cut off; it comes again.
                None => return Ok(None),
                Some(Err(error)) => return Err(ApiError::Broken(format!("broke off: {error}"))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        count(data.len());
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

/// An event of a watch.
pub(super) enum Event<T> {
    /// The object is there, as new or otherwise than before.
    Changed { key: ObjectKey, version: String, object: T },
    /// The object is gone.
    Deleted { key: ObjectKey, version: String },
    /// Nothing happened up to this version; the first list may be whole with it.
    Bookmark { version: String, ends_initial: bool },
}

/// The annotation of the bookmark behind the last of the initial events (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

impl<T: Object> Event<T> {
    /// Reads a line.
    pub(super) fn read(line: &[u8]) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        struct Line<'l> {
            r#type: &'l str,
            #[serde(borrow)]
            object: &'l RawValue,
        }
        /// What every object has besides what we keep of it.
        #[derive(Deserialize)]
        struct Versioned {
            metadata: VersionedMeta,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct VersionedMeta {
            resource_version: String,
            #[serde(default)]
            annotations: Option<HashMap<String, String>>,
        }
        #[derive(Deserialize)]
        struct Status {
            #[serde(default)]
            code: u16,
            #[serde(default)]
            message: String,
        }
        let Line { r#type, object } = serde_json::from_slice(line).map_err(|error| broken(&error))?;
        if r#type == "ERROR" {
            let Status { code, message } = serde_json::from_str(object.get()).map_err(|error| broken(&error))?;
            return Err(match code {
                410 => ApiError::Gone,
                code => ApiError::Refused { code, message: clean(&message).into_owned() },
            });
        }
        let Versioned { metadata } = serde_json::from_str(object.get()).map_err(|error| broken(&error))?;
        let version = metadata.resource_version;
        if r#type == "BOOKMARK" {
            let annotations = metadata.annotations.unwrap_or_default();
            let ends_initial = annotations.get(INITIAL_EVENTS_END).is_some_and(|value| value == "true");
            return Ok(Event::Bookmark { version, ends_initial });
        }
        let object: T = serde_json::from_str(object.get()).map_err(|error| broken(&error))?;
        let key = object.metadata().key();
        match r#type {
            "ADDED" | "MODIFIED" => Ok(Event::Changed { key, version, object }),
            "DELETED" => Ok(Event::Deleted { key, version }),
            other => Err(ApiError::Broken(format!("has an event of type {:?}", clean(other)))),
        }
    }
}

/// An answer that is not what it should be.
pub(super) fn broken(error: &serde_json::Error) -> ApiError {
    ApiError::Broken(format!("cannot be read: {error}"))
}
