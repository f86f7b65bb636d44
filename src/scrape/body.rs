//! A body as it comes in: decompressed slice by slice, parsed as far as it is whole, and judged at its end.

use std::io::Write;

use flate2::write::MultiGzDecoder;

use super::RequestHead;
use crate::model::{Failure, Reason, clean_to};
use crate::parse::protobuf::{FamilyParser, FamilyStep};
use crate::parse::{Converter, Entry, Exposition, Format, Parser, Step};

/// What becomes of an entry; a failure ends the scrape.
pub(super) type Each<'e> = &'e mut (dyn FnMut(&Entry<'_>) -> Result<(), Failure> + Send);

/// Decompresses as bytes come in.
pub(super) enum Decoder {
    Identity(Vec<u8>),
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
}

impl Decoder {
    pub(super) fn new(gzip: bool) -> Self {
        if gzip { Self::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))) } else { Self::Identity(Vec::new()) }
    }

    /// How much of what was transferred may be taken in before sizes and time are looked at again: gzip unpacks to a
    /// thousand times its size at most, so a slice is about a mebibyte of text at the worst.
    pub(super) fn slice_bytes(&self) -> usize {
        match self {
            Self::Identity(_) => 64 * 1024,
            Self::Gzip(_) => 1024,
        }
    }

    pub(super) fn push(&mut self, slice: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Identity(out) => out.extend_from_slice(slice),
            Self::Gzip(decoder) => decoder.write_all(slice).map_err(|error| bad_gzip(&error))?,
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        match self {
            Self::Identity(_) => Ok(()),
            Self::Gzip(decoder) => decoder.try_finish().map_err(|error| bad_gzip(&error)),
        }
    }

    pub(super) fn take(&mut self) -> Vec<u8> {
        match self {
            Self::Identity(out) => std::mem::take(out),
            Self::Gzip(decoder) => std::mem::take(decoder.get_mut()),
        }
    }
}

fn bad_gzip(error: &std::io::Error) -> Failure {
    Failure::new(Reason::Encoding, format!("the body is not valid gzip: {error}"))
}

/// Feeds the parser: keeps what is not parsed yet, and knows at the end whether the body was whole.
pub(super) struct Reader {
    parser: BodyParser,
    converter: Option<Converter>,
    pending: Vec<u8>,
    require_complete: bool,
}

enum BodyParser {
    Text(Format, Parser),
    Protobuf(FamilyParser),
}

impl Reader {
    pub(super) fn new(exposition: Exposition, head: &RequestHead) -> Self {
        let parser = match exposition {
            Exposition::Text(format) => BodyParser::Text(format, Parser::new(format)),
            Exposition::Protobuf => BodyParser::Protobuf(FamilyParser::new(head.native)),
        };
        let converter = head.convert.then(|| Converter::new(exposition, head.native.classic_too));
        Self { parser, converter, pending: Vec::new(), require_complete: head.require_complete }
    }

    /// What has come and is not parsed yet.
    pub(super) fn held_bytes(&self) -> u64 {
        self.pending.capacity() as u64
    }

    /// Parses what is whole now that `bytes` have come; at the end also the rest.
    pub(super) fn read(&mut self, bytes: &[u8], at_end: bool, each: Each<'_>) -> Result<(), Failure> {
        self.pending.extend_from_slice(bytes);
        // First everything that is whole; what then remains at the end of the body is its torn tail.
        self.parse(false, each)?;
        if at_end {
            if self.require_complete {
                self.check_end()?;
            }
            self.parse(true, each)?;
            if let Some(converter) = &mut self.converter {
                converter.end(each)?;
            }
        }
        Ok(())
    }

    /// Whether the body ends as a whole one does: in a line feed, OpenMetrics in `# EOF`, protobuf with a message.
    fn check_end(&self) -> Result<(), Failure> {
        let detail = match (&self.parser, &*self.pending) {
            (BodyParser::Text(Format::OpenMetrics, _), b"# EOF") => return Ok(()),
            (BodyParser::Text(_, parser), []) if parser.is_complete() => return Ok(()),
            (BodyParser::Text(..), []) => "the body ends without \"# EOF\"".to_owned(),
            (BodyParser::Protobuf(_), []) => return Ok(()),
            (BodyParser::Protobuf(_), torn) => {
                format!("the body ends inside a message, of which {} bytes came", torn.len())
            }
            (BodyParser::Text(..), torn) => {
                format!("the body ends inside a line: {:?}", clean_to(&String::from_utf8_lossy(torn), 80))
            }
        };
        Err(Failure::new(Reason::Truncated, detail))
    }

    fn parse(&mut self, at_end: bool, each: Each<'_>) -> Result<(), Failure> {
        let converter = &mut self.converter;
        let mut each = |entry: &Entry<'_>| match converter {
            Some(converter) => converter.take(entry, each),
            None => each(entry),
        };
        let done = match &mut self.parser {
            BodyParser::Text(_, parser) => lines(parser, &self.pending, at_end, &mut each)?,
            BodyParser::Protobuf(parser) => families(parser, &self.pending, at_end, &mut each)?,
        };
        self.pending.drain(..done);
        Ok(())
    }
}

/// Parses the lines that are whole; says how many bytes they have.
fn lines(parser: &mut Parser, input: &[u8], at_end: bool, each: Each<'_>) -> Result<usize, Failure> {
    let mut done = 0;
    while let Step::Entry(entry, taken) = parser.next(&input[done..], at_end).map_err(unreadable)? {
        each(&entry)?;
        done += taken;
    }
    Ok(done)
}

/// As [`lines`], with metric families.
fn families(parser: &mut FamilyParser, input: &[u8], at_end: bool, each: Each<'_>) -> Result<usize, Failure> {
    let mut done = 0;
    while let FamilyStep::Family(mut family, taken) = parser.next(&input[done..], at_end).map_err(unreadable)? {
        while let Some(entry) = family.next_entry().map_err(unreadable)? {
            each(&entry)?;
        }
        done += taken;
    }
    Ok(done)
}

fn unreadable(error: impl std::error::Error) -> Failure {
    Failure::new(Reason::Parse, error.to_string())
}
