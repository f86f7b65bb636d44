//! Reading texts, sets of pairs, and what may be `null`.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

/// A text that is shared; `null` and absent are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Text(Arc<str>);

impl Text {
    /// The text itself.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Text {
    type Target = Arc<str>;

    fn deref(&self) -> &Arc<str> {
        &self.0
    }
}

impl From<Text> for Arc<str> {
    fn from(text: Text) -> Self {
        text.0
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        // The empty text is the most frequent one; its default is not allocated anew.
        Ok(if text.is_empty() { Text::default() } else { Text(text.into()) })
    }

    fn visit_unit<E: Error>(self) -> Result<Text, E> {
        Ok(Text::default())
    }
}

/// Texts by unique keys, in the order of the keys: labels, annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pairs(Box<[(Text, Text)]>);

impl Pairs {
    /// The value of `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&Text> {
        let at = self.0.binary_search_by(|(own, _)| own.as_str().cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Text, &Text)> {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("texts by keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
        let mut pairs: Vec<(Text, Text)> = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        // Of a key that stands twice the last value counts.
        pairs.reverse();
        pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
        pairs.dedup_by(|(later, _), (first, _)| later == first);
        Ok(Pairs(pairs.into_boxed_slice()))
    }

    fn visit_unit<E: Error>(self) -> Result<Pairs, E> {
        Ok(Pairs::default())
    }
}

/// A value, or its default where `null` stands.
pub(super) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_reads_as_empty_and_other_types_do_not() {
        let text = |json| serde_json::from_str::<Text>(json).map(|text| text.to_string());
        assert_eq!(text("null").expect("empty"), "");
        assert_eq!(text(r#""a\n\u00fc""#).expect("a text"), "a\nü");
        assert!(text("1").is_err() && text("[]").is_err());
        assert_eq!(serde_json::from_str::<Pairs>("null").expect("empty"), Pairs::default());
        assert!(serde_json::from_str::<Pairs>("[]").is_err());
    }

    #[test]
    fn pairs_are_sorted_and_the_last_of_a_key_counts() {
        let pairs: Pairs =
            serde_json::from_str(r#"{"b": "1", "a": null, "b": "2", "c": "3", "b": ""}"#).expect("pairs");
        let read: Vec<(&str, &str)> = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(read, [("a", ""), ("b", ""), ("c", "3")]);
        assert_eq!(pairs.get("c").map(Text::as_str), Some("3"));
        assert_eq!(pairs.get("d"), None);
    }
}
