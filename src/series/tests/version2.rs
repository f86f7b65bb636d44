//! What receivers of remote write 2.0 get: what the others get, and what each series is.

use super::histograms::{histogram, scrape_histogram};
use super::*;
use crate::model::WriteFormat;
use crate::parse::SampleEntry;
use crate::wire::v2::proto::Request;

/// Receiver 0 gets 1.0, receiver 1 gets 2.0, receiver 2 gets 2.0 without being told what series are.
const RECEIVERS: &str = "remote_write:
- {url: 'http://one.example/w', name: one, send_exemplars: true, send_native_histograms: true}
- {url: 'http://two.example/w', name: two, protobuf_message: io.prometheus.write.v2.Request, send_exemplars: true,
   send_native_histograms: true, queue_config: {max_samples_per_send: 3}}
- {url: 'http://three.example/w', name: three, protobuf_message: io.prometheus.write.v2.Request,
   metadata_config: {send: false}}";

const L: &str = r#"{instance="t:1", job="j"}"#;

fn request(receiver: usize, blocks: &[Block]) -> Request {
    let blocks: Vec<&Block> = blocks.iter().filter(|block| block.receiver == receiver).collect();
    wire::decode_v2(&wire::join(&blocks).expect("of one target")).expect("valid")
}

/// As [`all_for`], of a receiver of 2.0.
fn all_for_2(receiver: usize, blocks: &[Block]) -> Vec<String> {
    let mut lines = Vec::new();
    for series in request(receiver, blocks).samples().expect("valid references").timeseries {
        let mut labels: Labels = series.labels.iter().map(|label| (&label.name, &label.value)).collect();
        let name = labels.remove("__name__").expect("named");
        for sample in series.samples {
            let value = if is_stale(sample.value) { "stale".to_owned() } else { sample.value.to_string() };
            lines.push(format!("{name}{labels} {value} {}", sample.timestamp));
        }
    }
    lines
}

/// What is said of each series: its name, type, help and unit.
fn described(receiver: usize, blocks: &[Block]) -> Vec<String> {
    let request = request(receiver, blocks);
    let text = |at: u32| request.symbols[at as usize].as_str();
    let line = |series: &wire::v2::proto::TimeSeries| {
        let labels = request.labels(&series.labels_refs).expect("valid references");
        let name = &labels.iter().find(|label| label.name == "__name__").expect("named").value;
        match &series.metadata {
            None => format!("{name} –"),
            Some(metadata) => {
                format!("{name} {} {:?} {:?}", metadata.r#type, text(metadata.help_ref), text(metadata.unit_ref))
            }
        }
    };
    let lines = request.timeseries.iter().map(line);
    lines.filter(|line| !line.starts_with("scrape_") && !line.starts_with("up ")).collect()
}

/// A target with its descriptions, as its task has them.
struct Told {
    scene: Scene,
    descriptions: Descriptions,
}

impl Told {
    fn new(rest: &str) -> Self {
        Self { scene: scene("", rest), descriptions: Descriptions::new(&Catalogue::default()) }
    }

    fn scrape(&mut self, at_ms: i64, text: &str) -> Vec<Block> {
        let mut pass = self.scene.table.begin(at_ms);
        let (mut parser, mut rest) = (Parser::new(Format::OpenMetrics), text.as_bytes());
        while let Step::Entry(entry, taken) = parser.next(rest, false).expect("good lines") {
            if let Some(family) = self.descriptions.take(&entry) {
                pass.announce(family);
            }
            if let Entry::Sample(sample) = &entry {
                pass.add(sample).expect("a good sample");
            }
            rest = &rest[taken..];
        }
        self.descriptions.end_scrape(true);
        pass.commit(&HEALTH)
    }
}

#[test]
fn both_versions_say_the_same_of_every_scrape() {
    let mut scene = scene("", RECEIVERS);
    let bodies = ["a 1\nb{x=\"y\"} 2\nc 3\nd 4\n", "a 1\nb{x=\"z\"} 2\nd -0\n", "", "d 4\na NaN\nb{x=\"y\"} 2\n"];
    for (at, body) in bodies.into_iter().enumerate() {
        let blocks = scene.scrape(1_000 * (at as i64 + 1), body);
        for receiver in [1, 2] {
            assert_eq!(all_for_2(receiver, &blocks), all_for(0, &blocks), "{body}");
        }
        let of = |receiver: usize| blocks.iter().filter(move |block| block.receiver == receiver);
        assert!(of(1).all(|block| block.format == WriteFormat::V2 && block.samples <= 3));
        assert!(of(0).all(|block| block.format == WriteFormat::V1));
    }
    let blocks = scene.failed(9_000, "a 1\n");
    assert_eq!(all_for_2(1, &blocks), all_for(0, &blocks));
    let blocks = scene.table.end(10_000);
    assert_eq!(all_for_2(1, &blocks), all_for(0, &blocks));
}

#[test]
fn each_series_says_what_it_is() {
    let mut told = Told::new(RECEIVERS);
    let body = "# TYPE a counter\n# HELP a How many\na_total 1\na_created 5\n# TYPE fill_ratio gauge\n# UNIT fill_ratio ratio\n\
                fill_ratio 0.5\nnobody 1\n";
    let expected = [r#"a_total 1 "How many" """#, "a_created –", r#"fill_ratio 2 "" "ratio""#, "nobody –"];
    for at_ms in [1_000, 2_000] {
        let blocks = told.scrape(at_ms, body);
        assert_eq!(described(1, &blocks), expected);
        assert!(described(2, &blocks).iter().all(|line| line.ends_with('–')), "who does not want it");
    }
    // What changes is told with the scrape that says so, what is not said any more stays, also with the end of a series.
    let blocks = told.scrape(3_000, "# HELP a How many more\na_total 2\nfill_ratio 1\n");
    assert_eq!(
        described(1, &blocks),
        [r#"a_total 1 "How many more" """#, r#"fill_ratio 2 "" "ratio""#, "a_created –", "nobody –",]
    );
    let blocks = told.scrape(4_000, "nobody 1\n");
    assert_eq!(described(1, &blocks), ["nobody –", r#"a_total 1 "How many more" """#, r#"fill_ratio 2 "" "ratio""#]);
}

#[test]
fn the_synthetic_series_are_described_too() {
    let blocks = Told::new(RECEIVERS).scrape(1_000, "");
    let request = request(1, &blocks);
    let of = |series: &wire::v2::proto::TimeSeries| {
        let metadata = series.metadata.expect("described");
        (metadata.r#type, request.symbols[metadata.unit_ref as usize].as_str())
    };
    let units: Vec<_> = request.timeseries.iter().map(of).collect();
    assert_eq!(units, [(2, "targets"), (2, "seconds"), (2, "samples"), (2, "samples"), (2, "series")]);
}

#[test]
fn what_a_target_has_ceased_to_say_is_listed_no_more_though_its_series_go_on() {
    let catalogue = Catalogue::default();
    let mut told = Told { descriptions: Descriptions::new(&catalogue), ..Told::new(RECEIVERS) };
    told.scrape(1_000, "# TYPE a gauge\na 1\n");
    assert_eq!(catalogue.list().len(), 1);
    for scrape in 2..14 {
        told.scrape(1_000 * scrape, "a 1\n");
    }
    assert_eq!(catalogue.list(), []);
    assert_eq!(described(1, &told.scrape(20_000, "a 1\n")), [r#"a 2 "" """#]);
}

#[test]
fn listed_bounds_and_exemplars_arrive() {
    let mut told = Told::new(RECEIVERS);
    let listed = histogram(vec![0.5, 2.5]);
    let blocks = scrape_histogram(&mut told.scene, 1_000, "h 1\n", &listed);
    let request_of_2 = request(1, &blocks);
    let came: Vec<_> = request_of_2.timeseries.iter().flat_map(|series| &series.histograms).collect();
    assert_eq!((came.len(), came[0].schema, &*came[0].custom_values), (1, -53, &[0.5, 2.5][..]));
    assert!(request(2, &blocks).timeseries.iter().all(|series| series.histograms.is_empty()), "who wants none");
    let view = told.scene.views.iter().find(|view| view.recipients[0].number == 1).expect("receiver 1 has a view");
    assert_eq!(view.recipients[0].listed_bounds.get(), 0, "nothing is lost");

    let blocks = told.scrape(2_000, "# TYPE a counter\na_total 1 # {trace=\"abc\"} 0.5 1.5\n");
    let request = request(1, &blocks);
    let [sample, exemplar] = &request.timeseries[..2] else { panic!("two entries") };
    assert_eq!((sample.samples.len(), sample.exemplars.len()), (1, 0));
    assert_eq!((exemplar.samples.len(), exemplar.exemplars.len()), (0, 1), "an entry of its own behind its sample");
    assert_eq!((&exemplar.labels_refs, &exemplar.metadata), (&sample.labels_refs, &sample.metadata));
    let own = &exemplar.exemplars[0];
    assert_eq!((own.value, own.timestamp), (0.5, 1_500));
    assert_eq!(request.labels(&own.labels_refs).expect("valid references")[0].value, "abc");
}

#[test]
fn a_receiver_that_changes_its_message_gets_every_series_so() {
    let of_1 = "remote_write: [{url: 'http://one.example/w', name: one}]";
    let of_2 =
        "remote_write: [{url: 'http://one.example/w', name: one, protobuf_message: io.prometheus.write.v2.Request}]";
    let mut scene = scene("", of_1);
    scene.scrape(1_000, "a 1\nb 1\n");
    scene.reload(0, "", of_2);
    let blocks = scene.scrape(2_000, "a 2\n");
    assert_eq!(all_for_2(0, &blocks)[..1], [format!("a{L} 2 2000")], "of a series that it never had it gets no marker");
    scene.reload(0, "", of_1);
    assert_eq!(lines(&scene.scrape(3_000, "a 3\n")), [format!("a{L} 3 3000")]);
}

#[test]
fn texts_of_series_that_are_gone_are_forgotten() {
    let mut scene = scene("", RECEIVERS);
    let body = |scrape: usize| -> String { (0..500).map(|n| format!("a{{x=\"{scrape}-{n}\"}} 1\n")).collect() };
    scene.scrape(1_000, &body(0));
    let bytes = scene.table.bytes;
    for scrape in 1..50 {
        let blocks = scene.scrape(1_000 * (scrape as i64 + 1), &body(scrape));
        assert_eq!(all_for_2(1, &blocks), all_for(0, &blocks));
    }
    assert!(scene.table.bytes < 2 * bytes, "{} of {bytes}", scene.table.bytes);
}

#[test]
fn what_series_are_said_to_be_is_bounded() {
    let mut told = Told::new(RECEIVERS);
    // Each series is described by a text of its own, and keeps it while it is exposed.
    let long = "x".repeat(100_000);
    let body: String = (0..100).map(|n| format!("# HELP a {n} {long}\na{{n=\"{n}\"}} 1\n")).collect();
    let samples: String = (0..100).map(|n| format!("a{{n=\"{n}\"}} 1\n")).collect();
    told.scrape(1_000, &body);
    told.scrape(2_000, &samples);
    let held: std::collections::HashSet<_> =
        told.scene.table.series.iter().flatten().filter_map(|series| series.metadata.as_ref()).collect();
    let bytes: usize = held.iter().map(|metadata| metadata.help.len()).sum();
    assert!(!held.is_empty() && bytes <= 2 << 20, "{} of {bytes} bytes", held.len());
}

#[test]
fn since_when_a_series_counts_is_told_by_2_0_if_it_can_be_so() {
    let mut scene = scene("", RECEIVERS);
    let text = b"a_total 1\nb_total 2\nc_total 3\nd 4\ne_total 5 900\n";
    let mut pass = scene.table.begin(1000);
    let (mut parser, mut rest) = (Parser::new(Format::PrometheusText), &text[..]);
    // Neither the epoch nor the time of the sample nor what comes after it can be a beginning.
    let mut starts = [Some(999), Some(0), Some(1000), None, Some(899)].into_iter();
    while let Step::Entry(entry, taken) = parser.next(rest, false).expect("good lines") {
        if let Entry::Sample(sample) = entry {
            let start_ms = starts.next().expect("one for each sample");
            pass.add(&SampleEntry { start_ms, ..sample }).expect("a good sample");
        }
        rest = &rest[taken..];
    }
    let blocks = pass.commit(&HEALTH);
    for receiver in [1, 2] {
        let series = request(receiver, &blocks).timeseries;
        let told: Vec<_> = series.iter().map(|one| (one.samples[0].value, one.samples[0].start_timestamp)).collect();
        assert_eq!(told[..5], [(1.0, 999), (2.0, 0), (3.0, 0), (4.0, 0), (5.0, 899)]);
        assert!(told[5..].iter().all(|(_, start_ms)| *start_ms == 0), "{told:?}");
    }
}
