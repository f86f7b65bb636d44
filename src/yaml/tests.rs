use proptest::prelude::*;

use super::*;

fn tree(text: &str) -> Node {
    parse(text).expect(text).expect("not empty")
}

fn refused(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

/// The tree without places: null, `plain`, `'quoted'`, `[a,b]`, `{k:v}`.
fn shape(node: &Node) -> String {
    let all = |nodes: &[Node]| nodes.iter().map(shape).collect::<Vec<_>>().join(",");
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Scalar { text, quoted: true } => format!("'{text}'"),
        Value::Scalar { text, quoted: false } => text.clone(),
        Value::Sequence(items) => format!("[{}]", all(items)),
        Value::Mapping(pairs) => {
            let pairs = pairs.iter().map(|(key, value)| format!("{}:{}", shape(key), shape(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
        }
    }
}

#[test]
fn scalars_stay_as_they_were_written() {
    for (text, expected) in [
        ("a: 0x1F", "{a:0x1F}"),
        ("a: 1.50", "{a:1.50}"),
        ("a: no", "{a:no}"),
        ("a: '80'", "{a:'80'}"),
        ("a: \"x\\ty\"", "{a:'x\ty'}"),
        ("a: |\n  x\n  y\n", "{a:'x\ny\n'}"),
        ("a: >-\n  x\n  y\n", "{a:'x y'}"),
        ("a:\nb: ~\nc: null\nd: ''", "{a:null,b:null,c:null,d:''}"),
        ("- !!str 5\n- !!int 5\n- ! 5\n- !!null ~\n- !!seq []\n- !!map {}", "['5',5,'5',null,[],{}]"),
        ("a: 1\na: 2", "{a:1,a:2}"),
        (r#"[{"targets": ["a:1"], "labels": {"x": "1"}}]"#, "[{'targets':['a:1'],'labels':{'x':'1'}}]"),
        (r#"{"a":{"b":[1,true,null]}}"#, "{'a':{'b':[1,true,null]}}"),
        ("\u{feff}a: 1\r\nb: 2\r\n", "{a:1,b:2}"),
        ("a: ${X}\nb: x#y # c", "{a:${X},b:x#y}"),
    ] {
        assert_eq!(shape(&tree(text)), expected, "{text}");
    }
}

#[test]
fn only_the_first_document_counts() {
    assert_eq!(shape(&tree("---\na: 1\n---\nb: [\n")), "{a:1}");
    assert_eq!(shape(&tree("a: 1\n...\nb: 2\n")), "{a:1}");
    for empty in ["", "\n# nothing\n", "---\n", "~", "--- null\n---\na: 1"] {
        assert_eq!(parse(empty), Ok(None), "{empty:?}");
    }
}

#[test]
fn places_count_lines_and_characters_from_one() {
    let root = tree("a: 1\nü:\n  - é: [x, 'y']\n");
    let Value::Mapping(pairs) = &root.value else { panic!("a mapping") };
    let Value::Sequence(items) = &pairs[1].1.value else { panic!("a list") };
    let Value::Mapping(inner) = &items[0].value else { panic!("a mapping") };
    let Value::Sequence(words) = &inner[0].1.value else { panic!("a list") };
    let places = [&root, &pairs[0].1, &pairs[1].0, &items[0], &inner[0].1, &words[0], &words[1]].map(|node| node.pos);
    let expected = [(1, 1), (1, 4), (2, 1), (3, 5), (3, 8), (3, 9), (3, 12)];
    assert_eq!(places, expected.map(|(line, column)| Pos { line, column }));
}

#[test]
fn aliases_and_merge_keys_are_resolved() {
    assert_eq!(
        shape(&tree("a: &x {k: 1}\nb: *x\nc: &y [*x, *x]\nd: *y")),
        "{a:{k:1},b:{k:1},c:[{k:1},{k:1}],d:[{k:1},{k:1}]}"
    );
    assert_eq!(shape(&tree("a: &x {k: 1, l: 2}\nb: {<<: *x, l: 3}")), "{a:{k:1,l:2},b:{l:3,k:1}}");
    assert_eq!(shape(&tree("a: {<<: [{k: 1}, {k: 2, m: 4}]}")), "{a:{k:1,m:4}}");
    assert_eq!(shape(&tree("a: {'<<': 1}")), "{a:{'<<':1}}");
    let root = tree("a: &x {k: 1}\nb: *x\n");
    let Value::Mapping(pairs) = &root.value else { panic!("a mapping") };
    assert_eq!(pairs[1].1.pos, Pos { line: 2, column: 4 }, "an alias is where it stands");
    let Value::Mapping(inner) = &pairs[1].1.value else { panic!("a mapping") };
    assert_eq!(inner[0].0.pos, Pos { line: 1, column: 8 }, "what it names is where it was written");
}

#[test]
fn what_has_no_end_is_refused_with_its_place() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", below.trim_end_matches(", ")));
    }
    assert!(refused(&bomb).starts_with("line 5, column "), "{}", refused(&bomb));
    assert!(refused(&bomb).ends_with("aliases multiply the document to more than 100000 values"));
    for deep in ["[".repeat(65), "- ".repeat(100_000), "[".repeat(100_000), "{a: ".repeat(65), "? ".repeat(1000)] {
        let message = refused(&deep);
        assert!(message.contains("deeper than 64 levels"), "{message}");
    }
    let halves = format!("a: &x {}x{}\nb: {}*x{}", "[".repeat(40), "]".repeat(40), "[".repeat(40), "]".repeat(40));
    assert_eq!(refused(&halves), "line 2, column 44: with this alias, values nest deeper than 64 levels");
    assert_eq!(refused("a: &x [1, *x]"), "line 1, column 11: this alias stands inside of what it names");
    let large = format!("[{}]", "1,".repeat(1_000_001));
    assert_eq!(refused(&large), "line 1, column 2000002: the document has more than 1000000 values");
}

#[test]
fn what_is_no_yaml_is_refused_with_its_place() {
    for (text, expected) in [
        (
            "a: b: c",
            "line 1, column 5: this is not YAML: a second \": \" stands in one line; put the value in quotes, or begin a new line",
        ),
        (
            "a: *x",
            "line 1, column 4: this is not YAML: the alias names nothing; define it above with &, or put a value that begins with * in quotes",
        ),
        (
            "a: !secret x",
            "line 1, column 4: this tag does not fit here; remove it, or put a value that begins with ! in quotes",
        ),
        (
            "a: !!binary aGk=",
            "line 1, column 4: this tag does not fit here; remove it, or put a value that begins with ! in quotes",
        ),
        (
            "a: !!map []",
            "line 1, column 4: this tag does not fit here; remove it, or put a value that begins with ! in quotes",
        ),
        ("a: {<<: 1}", "line 1, column 9: \"<<\" takes a mapping or a list of mappings, this is a single value"),
        (
            "{\"a\": 1} x",
            "line 1, column 10: this is not YAML: this does not belong to what stands above; check the indentation",
        ),
        (
            "a: 1\nbc",
            "line 2, column 1: this is not YAML: this is no key with a value; write key: value, with a blank behind the ':'",
        ),
        (
            "a: 1\r\rbc\r\r\nd: 1\n",
            "line 3, column 1: this is not YAML: this is no key with a value; write key: value, with a blank behind the ':'",
        ),
    ] {
        assert_eq!(refused(text), expected, "{text}");
    }
    assert!(refused("%üüü \u{feff}\r").starts_with("line 1, column 7: "));
    for text in ["a: [1, 2", "a: 'x", "a: 1\n b: 2", "a: 1\n- b", "a:\n\tb: 1", "{a: 1", "a: \"\\q\"", "@a"] {
        assert!(parse(text).is_err(), "{text:?} was accepted");
    }
}

proptest! {
    #[test]
    fn every_text_is_read_or_refused_in_a_place_of_its_own(
        text in "[ \\r\\na-c:\\-\\[\\]{}&*!|>'\"#?,~<%@\\t0-9\u{feff}ü]{0,60}",
    ) {
        if let Err(YamlError { pos, .. }) = parse(&text) {
            let text = text.replace("\r\n", "\n");
            let line = text.split(['\n', '\r']).nth(pos.line - 1);
            prop_assert!(line.is_some_and(|line| pos.column <= line.chars().count() + 2), "{:?}", pos);
        }
    }

    #[test]
    fn no_bytes_panic(text in any::<String>()) {
        let _ = parse(&text);
    }

    /// `serde_json` is an independent reader of the part of YAML that is JSON.
    #[test]
    fn json_strings_are_read_as_json_reads_them(keys in prop::collection::vec("[ -~é\\n\\t]{0,12}", 0..5)) {
        let json = serde_json::to_string(&keys).expect("strings");
        let wanted = keys.into_iter().map(|text| Value::Scalar { text, quoted: true }).collect::<Vec<_>>();
        let Value::Sequence(items) = tree(&json).value else { panic!("a list") };
        prop_assert_eq!(items.into_iter().map(|node| node.value).collect::<Vec<_>>(), wanted);
    }
}
