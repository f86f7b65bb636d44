//! What can be wrong with a protobuf exposition, and where.

use thiserror::Error;

use super::{MAX_FAMILY_BYTES, MAX_METRIC_BYTES, MAX_SERIES_BYTES};
use crate::parse::MAX_LABELS;
use crate::parse::error::Excerpt;

/// Where reading stopped, and why.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("byte {byte}: {problem}")]
pub struct ProtobufError {
    /// The offset of the message or the field in the body, counted from 0.
    pub byte: u64,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Problem {
    /// A length, a field or a value.
    #[error("this is not a number as protobuf writes them: the body is probably not a stream of MetricFamily messages")]
    Varint,
    /// The body ends inside a family.
    #[error("the body ends inside a metric family, of which {missing} bytes are missing")]
    Cut {
        /// How many at least.
        missing: u64,
    },
    /// Over [`MAX_FAMILY_BYTES`].
    #[error("the metric family has {length} bytes, and {MAX_FAMILY_BYTES} are read at most")]
    FamilyTooLong {
        /// What it claims to have.
        length: u64,
    },
    /// Over [`MAX_METRIC_BYTES`].
    #[error("the metric has {length} bytes, and {MAX_METRIC_BYTES} are read at most")]
    MetricTooLong {
        /// What it has.
        length: usize,
    },
    /// Over [`MAX_SERIES_BYTES`].
    #[error(
        "with {family} the names and labels of the series come to more than {MAX_SERIES_BYTES} bytes, the ceiling that stands"
    )]
    TooManySeriesBytes {
        /// The family that it is too much with.
        family: Excerpt,
    },
    /// A field with the number 0.
    #[error("a field has the number 0, which no field has")]
    FieldNumber,
    /// A field that ends behind its message.
    #[error("the field {number} is longer than the message around it")]
    FieldTooLong {
        /// The field.
        number: u64,
    },
    /// A field of an unknown kind, or of another kind than MetricFamily has it.
    #[error("the field {number} of MetricFamily cannot have the wire type {wire_type}")]
    WireType {
        /// The field.
        number: u64,
        /// The type.
        wire_type: u64,
    },
    /// A metric that a protobuf library cannot read.
    #[error("a metric of {family} cannot be read: {detail}")]
    Metric {
        /// Its family.
        family: Excerpt,
        /// The library's words.
        detail: String,
    },
    /// A family without a name.
    #[error("the name of a metric family is empty")]
    NoName,
    /// A name, a help text or a unit.
    #[error("the {0} of the metric family is not valid UTF-8")]
    Utf8(&'static str),
    /// A number that names no type.
    #[error("{family} has the unknown type {number}")]
    Type {
        /// The family.
        family: Excerpt,
        /// What stands there.
        number: u64,
    },
    /// The unit is not the end of the family's name.
    #[error("the unit {unit} is not the last part of the metric name {family}")]
    Unit {
        /// The family.
        family: Excerpt,
        /// Its unit.
        unit: Excerpt,
    },
    /// A label without a name.
    #[error("a label of {family} has an empty name")]
    LabelName {
        /// The family.
        family: Excerpt,
    },
    /// Over [`MAX_LABELS`].
    #[error("a metric of {family} has over {MAX_LABELS} labels")]
    TooManyLabels {
        /// The family.
        family: Excerpt,
    },
}
