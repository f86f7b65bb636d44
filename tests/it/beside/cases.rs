//! The cases: what an exporter answers, one answer a scrape, and what the job says. Written down in
//! `tests/fixtures/beside/*.cases`, whose heads describe the notation.

use std::fmt::{self, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use meshscrape::parse::Exposition;

use crate::support::protobuf;
use crate::support::tls_server::{Asked, Reply, Then};

const PROTOBUF: &str = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// One job, whose single target answers by script.
#[derive(Clone, Debug, Default)]
pub(super) struct Case {
    pub(super) name: String,
    /// Which servers run it; empty is all.
    pub(super) only: String,
    /// Lines of the job's configuration.
    pub(super) config: Vec<String>,
    /// More labels of the target, a line of YAML each.
    pub(super) labels: Vec<String>,
    /// One a scrape; the last one is repeated.
    pub(super) answers: Vec<Answer>,
}

/// What one scrape gets.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    status: String,
    content_type: Option<String>,
    headers: Vec<String>,
    gzip: bool,
    /// Whether the body is written down as text and sent as messages.
    protobuf: bool,
    ending: Ending,
    body: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    /// With its length.
    Whole,
    /// In chunks.
    Chunked,
    /// The connection ends in the middle of the body.
    Cut,
    /// Nothing more comes after the middle of the body.
    Hang,
}

impl Answer {
    /// A good one in the text format.
    pub(super) fn text(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: "200 OK".to_owned(),
            content_type: Some("text/plain; version=0.0.4".to_owned()),
            headers: Vec::new(),
            gzip: false,
            protobuf: false,
            ending: Ending::Whole,
            body: body.into(),
        }
    }

    pub(super) fn typed(self, content_type: &str) -> Self {
        Self { content_type: Some(content_type.to_owned()), ..self }
    }

    /// The body of an answer that asks for nothing of the moment, and how it is to be read.
    pub(super) fn exposition(&self) -> (Exposition, Vec<u8>) {
        let content_type = self.content_type.as_deref().expect("a content type");
        let exposition = Exposition::of_content_type(content_type).expect("a known one");
        (exposition, if self.protobuf { protobuf::stream(&self.body) } else { self.body.clone() })
    }

    /// The bytes of it, with what only the moment knows.
    pub(super) fn reply(&self, moment: &mut Moment<'_>) -> Reply {
        let mut body = fill(&self.body, moment);
        if self.protobuf {
            body = protobuf::stream(&body);
        }
        if self.gzip {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            std::io::Write::write_all(&mut encoder, &body).expect("memory");
            body = encoder.finish().expect("memory");
        }
        let mut head = format!("HTTP/1.1 {}\r\n", self.status);
        for line in self.content_type.iter().map(|kind| format!("Content-Type: {kind}")).chain(self.headers.clone()) {
            head.push_str(&line);
            head.push_str("\r\n");
        }
        if self.gzip {
            head.push_str("Content-Encoding: gzip\r\n");
        }
        let half = body.len() / 2;
        let (length, sent, then) = match self.ending {
            Ending::Whole => (format!("Content-Length: {}", body.len()), body, Then::Keep),
            Ending::Cut => (format!("Content-Length: {}", body.len()), body[..half].to_vec(), Then::Cut),
            Ending::Hang => (format!("Content-Length: {}", body.len()), body[..half].to_vec(), Then::Hang),
            Ending::Chunked => {
                let mut chunks = Vec::new();
                for part in [&body[..half], &body[half..]].into_iter().filter(|part| !part.is_empty()) {
                    chunks.extend(format!("{:x}\r\n", part.len()).bytes());
                    chunks.extend(part);
                    chunks.extend(b"\r\n");
                }
                chunks.extend(b"0\r\n\r\n");
                ("Transfer-Encoding: chunked".to_owned(), chunks, Then::Keep)
            }
        };
        write!(head, "{length}\r\n\r\n").expect("memory");
        Reply::raw([head.into_bytes(), sent].concat(), then)
    }
}

/// When somebody is answered.
pub(super) struct Moment<'a> {
    /// Which of the answers this is, from 1.
    pub(super) number: usize,
    /// When the first answer was given, and now.
    pub(super) first_ms: i64,
    pub(super) now_ms: i64,
    /// What was asked.
    pub(super) asked: &'a Asked,
    /// The times that were put into answers, with what they were made of.
    pub(super) written: &'a mut Vec<(i64, String, usize)>,
}

/// Puts in `«n»`, the number of the answer; `«t-500»`, milliseconds from now; `«s-0.5»`, the same in seconds; `«f+1»`,
/// milliseconds from the first answer; `«hx-team»`, the values of that header of the request.
fn fill(body: &[u8], moment: &mut Moment<'_>) -> Vec<u8> {
    let (open, close) = ("«".as_bytes(), "»".as_bytes());
    let mut filled = Vec::new();
    let mut rest = body;
    while let Some(at) = find(rest, open) {
        filled.extend(&rest[..at]);
        rest = &rest[at + open.len()..];
        let end = find(rest, close).expect("« is closed");
        let words = std::str::from_utf8(&rest[..end]).expect("text");
        rest = &rest[end + close.len()..];
        let (kind, by) = words.split_at(1);
        if kind == "h" {
            filled.extend(moment.asked.headers(by).join(" and ").bytes());
            continue;
        }
        let by: f64 = if by.is_empty() { 0.0 } else { by.parse().expect(words) };
        match kind {
            "n" => filled.extend((moment.number as f64 + by).to_string().bytes()),
            "f" => {
                let at = moment.first_ms + by as i64;
                moment.written.push((at, words.to_owned(), 1));
                filled.extend(at.to_string().bytes());
            }
            "t" | "s" => {
                let scale = if kind == "t" { 1.0 } else { 1000.0 };
                let at = moment.now_ms + (by * scale) as i64;
                moment.written.push((at, format!("{words} of answer {}", moment.number), moment.number));
                let text = if kind == "t" { at.to_string() } else { format!("{}.{:03}", at / 1000, at % 1000) };
                filled.extend(text.bytes());
            }
            _ => panic!("«{words}» stands for nothing"),
        }
    }
    filled.extend(rest);
    filled
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// In the notation of the files.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "== {}", self.name)?;
        self.config.iter().try_for_each(|line| writeln!(f, "config {line}"))?;
        self.answers.iter().try_for_each(|answer| {
            writeln!(f, ">\ntype {}", answer.content_type.as_deref().unwrap_or("-"))?;
            let lines = answer.body.split_inclusive(|byte| *byte == b'\n');
            lines.map(|line| line.strip_suffix(b"\n").map_or(("/", line), |line| ("|", line))).try_for_each(
                |(mark, line)| {
                    write!(f, "{mark} ")?;
                    for chunk in line.utf8_chunks() {
                        for c in chunk.valid().chars() {
                            match c {
                                '\0'..='\u{1f}' | '\u{7f}' => write!(f, "⟦{:02X}⟧", u32::from(c))?,
                                c => write!(f, "{c}")?,
                            }
                        }
                        chunk.invalid().iter().try_for_each(|byte| write!(f, "⟦{byte:02X}⟧"))?;
                    }
                    writeln!(f)
                },
            )
        })
    }
}

/// Reads a file of cases; its name goes before theirs.
pub(super) fn parse(file: &str, text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        if mark == "==" {
            cases.push(Case { name: format!("{file}-{rest}"), ..Case::default() });
            continue;
        }
        let case = cases.last_mut().expect("a case begins with ==");
        match mark {
            "only" => case.only = rest.to_owned(),
            "config" => case.config.push(rest.to_owned()),
            "label" => case.labels.push(rest.to_owned()),
            ">" => case.answers.push(answer(rest)),
            _ => {
                let answer = case.answers.last_mut().expect("an answer begins with >");
                match mark {
                    "|" | "/" => {
                        push_bytes(&mut answer.body, rest);
                        answer.body.extend((mark == "|").then_some(b'\n'));
                    }
                    "status" => answer.status = rest.to_owned(),
                    "type" => answer.content_type = (rest != "-").then(|| rest.to_owned()),
                    "header" => answer.headers.push(rest.to_owned()),
                    _ => panic!("{line:?} is no line of a case"),
                }
            }
        }
    }
    cases
}

/// The bodies of `tests/fixtures/exposition`, each between two good scrapes. What must come of them is not looked at here.
pub(super) fn of_expositions(file: &str, content_type: &str, text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        if mark == "==" {
            let good = Answer::text("before_and_after «n»\n");
            let answers = vec![good.clone(), Answer::text("").typed(content_type), good];
            cases.push(Case { name: format!("{file}-{rest}"), answers, ..Case::default() });
            continue;
        }
        let answer = &mut cases.last_mut().expect("a case begins with ==").answers[1];
        match mark {
            "|" | "/" => {
                push_bytes(&mut answer.body, rest);
                answer.body.extend((mark == "|").then_some(b'\n'));
            }
            "content-type" => answer.content_type = Some(rest.to_owned()),
            _ => {}
        }
    }
    cases
}

/// `[openmetrics|protobuf] [gzip] [chunked|cut|hang]`
fn answer(words: &str) -> Answer {
    let mut answer = Answer::text("");
    for word in words.split_whitespace() {
        match word {
            "openmetrics" => {
                answer = answer.typed("application/openmetrics-text; version=1.0.0; charset=utf-8");
            }
            "protobuf" => {
                answer = answer.typed(PROTOBUF);
                answer.protobuf = true;
            }
            "gzip" => answer.gzip = true,
            "chunked" => answer.ending = Ending::Chunked,
            "cut" => answer.ending = Ending::Cut,
            "hang" => answer.ending = Ending::Hang,
            _ => panic!("{word} is no kind of answer"),
        }
    }
    answer
}

/// Bytes that would not show stand as `⟦hex⟧`.
fn push_bytes(body: &mut Vec<u8>, mut text: &str) {
    while let Some((before, rest)) = text.split_once('⟦') {
        let (byte, after) = rest.split_once('⟧').expect("⟦ is closed");
        body.extend_from_slice(before.as_bytes());
        body.push(u8::from_str_radix(byte, 16).expect("two hexadecimal digits"));
        text = after;
    }
    body.extend_from_slice(text.as_bytes());
}
