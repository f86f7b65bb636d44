//! A body as it comes in: decompressed slice by slice, parsed as far as it is whole, and judged at its end.

use std::io::Write;

use flate2::write::MultiGzDecoder;

use crate::model::{Failure, Reason, clean_to};
use crate::parse::{Entry, Format, Parser, Step};

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
    format: Format,
    parser: Parser,
    pending: Vec<u8>,
    require_complete: bool,
}

impl Reader {
    pub(super) fn new(format: Format, require_complete: bool) -> Self {
        Self { format, parser: Parser::new(format), pending: Vec::new(), require_complete }
    }

    /// Parses what is whole now that `text` has come; at the end also the rest.
    pub(super) fn read(&mut self, text: &[u8], at_end: bool, each: Each<'_>) -> Result<(), Failure> {
        self.pending.extend_from_slice(text);
        // First everything that is whole; what then remains at the end of the body is its torn tail.
        self.parse(false, each)?;
        if at_end {
            if self.require_complete {
                self.check_end()?;
            }
            self.parse(true, each)?;
        }
        Ok(())
    }

    /// Whether the body ends as a whole one does: in a line feed, OpenMetrics in `# EOF`.
    fn check_end(&self) -> Result<(), Failure> {
        let detail = match &*self.pending {
            b"# EOF" if self.format == Format::OpenMetrics => return Ok(()),
            [] if self.parser.is_complete() => return Ok(()),
            [] => "the body ends without \"# EOF\"".to_owned(),
            torn => format!("the body ends inside a line: {:?}", clean_to(&String::from_utf8_lossy(torn), 80)),
        };
        Err(Failure::new(Reason::Truncated, detail))
    }

    fn parse(&mut self, at_end: bool, each: Each<'_>) -> Result<(), Failure> {
        let mut done = 0;
        let outcome = loop {
            match self.parser.next(&self.pending[done..], at_end) {
                Ok(Step::Entry(entry, consumed)) => {
                    if let Err(failure) = each(&entry) {
                        break Err(failure);
                    }
                    done += consumed;
                }
                Ok(Step::NeedMore | Step::End) => break Ok(()),
                Err(error) => break Err(Failure::new(Reason::Parse, error.to_string())),
            }
        };
        self.pending.drain(..done);
        outcome
    }
}
