//! `meshscrape check certs [DIR]`: is what lies in a certificate directory good enough to scrape with?
//!
//! Everything that is there is shown, in order or not; what would keep the agent from scraping is a problem (exit 1),
//! what is only unwise a warning. Opens no socket and changes nothing.

use std::fmt::{Display, Write as _};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::CheckOutput;
use super::certificates::files_in;
use crate::clock::Clock;
use crate::config::CertificateFiles;
use crate::identity::{CertificateFacts, Inspection, inspect};
use crate::model::{clean, clean_to};

/// Prints the report on `dir`; 0 if it is in order, 1 if not.
///
/// # Errors
/// If the report cannot be written.
pub(super) fn run(dir: &Path, output: CheckOutput, out: &mut impl Write, clock: &Clock) -> io::Result<u8> {
    let files = files_in(dir);
    let now = clock.now();
    let mut report = Report { dir: clean(&dir.display().to_string()).into_owned(), ..Report::default() };
    if dir.is_dir() {
        let found = inspect(&files, now);
        identity(&found, &mut report);
        chain(&found, &files, now, &mut report);
        roots(&found, &files, now, &mut report);
        for broken in &found.broken {
            report.problem(broken);
        }
        permissions(&files, &mut report);
        names(dir, &files, &mut report);
    } else {
        report.problem("no such directory; give the one that OUTPUT_CERTS names");
    }
    match output {
        CheckOutput::Text => out.write_all(report.text().as_bytes())?,
        CheckOutput::Json => {
            serde_json::to_writer_pretty(&mut *out, &report.document())?;
            out.write_all(b"\n")?;
        }
    }
    Ok(if report.count(Level::Problem) == 0 { 0 } else { 1 })
}

fn identity(found: &Inspection, report: &mut Report) {
    report.section("identity", "identity");
    match &found.id {
        Some(Ok(id)) => {
            report.identity = Some(id.to_string());
            report.good(id);
            report.good(format!("trust domain {}", id.trust_domain()));
        }
        Some(Err(fault)) => {
            report.warning(format!("no SPIFFE ID: {fault}; the configuration must set tls_config.spiffe.trust_domain"));
        }
        None => report.problem("no certificate that could be read"),
    }
    if let Some(fault) = &found.form {
        report.warning(format!("peers may refuse the certificate: {fault}"));
    }
}

fn chain(found: &Inspection, files: &CertificateFiles, now: SystemTime, report: &mut Report) {
    report.section("certificate", format!("own certificate ({}, {})", name(&files.chain), name(&files.key)));
    match &found.chain {
        Err(fault) => report.problem(fault),
        Ok(certificates) => {
            report.chain.extend(certificates.iter().flatten().map(Certificate::of));
            for (at, certificate) in certificates.iter().enumerate() {
                match certificate {
                    Ok(facts) if !facts.is_valid_at(now) => report.problem(described(facts, now)),
                    Ok(facts) if at == 0 && now > facts.overdue_after() => {
                        let text = described(facts, now);
                        report.warning(format!(
                            "{text}; less than a quarter of its life is left, so its renewal is overdue"
                        ));
                    }
                    Ok(facts) => report.good(described(facts, now)),
                    Err(fault) => report.problem(format!("certificate {}: {fault}", at + 1)),
                }
            }
        }
    }
    match &found.key {
        Ok(()) => report.good("the key belongs to the certificate"),
        Err(fault) => report.problem(fault),
    }
    match &found.verified {
        Some(Ok(())) => report.good("the chain leads to a root"),
        Some(Err(fault)) => report.problem(format!("{fault}; peers with the same roots refuse us")),
        None => {}
    }
}

fn roots(found: &Inspection, files: &CertificateFiles, now: SystemTime, report: &mut Report) {
    report.section("roots", format!("roots ({})", name(&files.root)));
    let certificates = match &found.roots {
        Ok(certificates) => certificates,
        Err(fault) => return report.problem(fault),
    };
    report.roots.extend(certificates.iter().flatten().map(Certificate::of));
    let mut usable = 0;
    for (at, certificate) in certificates.iter().enumerate() {
        match certificate {
            Ok(facts) if !facts.is_ca => report.warning(format!("{}: not a CA, passed over", facts.name())),
            Ok(facts) if !facts.is_valid_at(now) => report.warning(described(facts, now)),
            Ok(facts) => {
                usable += 1;
                report.good(described(facts, now));
                report.remark(format!("SHA-256 {}", facts.fingerprint));
            }
            Err(fault) => report.warning(format!("certificate {}: {fault}", at + 1)),
        }
    }
    if usable == 0 {
        report.problem("no root is valid now, so no peer can be verified");
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Who may read the key can pose as us; who may write the roots decides whom we believe.
fn permissions(files: &CertificateFiles, report: &mut Report) {
    report.section("permissions", "permissions");
    let mut all_good = files.chain.exists() || files.key.exists() || files.root.exists();
    for (path, unwanted) in [(&files.chain, 0o022), (&files.key, 0o066), (&files.root, 0o022)] {
        let Ok(metadata) = path.metadata() else { continue };
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & unwanted != 0 {
            all_good = false;
            let what = if mode & unwanted & 0o022 != 0 { "written" } else { "read" };
            report.warning(format!("{} can be {what} by other users (mode {mode:04o})", name(path)));
        }
    }
    if all_good {
        report.good("nothing that others could read or write and should not");
    }
}

/// What looks for a directory by itself knows the names of Istio's agent only.
fn names(dir: &Path, files: &CertificateFiles, report: &mut Report) {
    if *files == CertificateFiles::in_dir(dir) {
        return;
    }
    report.section("names", "names");
    report.warning(
        "these names are not Istio's, so certs_dir and --mesh-certs-dir do not find the files: tls_config must name each",
    );
    let shown = |path: &Path| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        clean(&path.display().to_string()).into_owned()
    };
    let [chain, key, root] = [&files.chain, &files.key, &files.root].map(|path| shown(path));
    report.remark(format!("tls_config: {{ cert_file: {chain}, key_file: {key}, ca_file: {root}, spiffe: {{}} }}"));
}

fn described(facts: &CertificateFacts, now: SystemTime) -> String {
    let by = if facts.issuer == facts.subject { String::new() } else { format!(", issued by {}", facts.issuer) };
    format!("{}{by}, {}", facts.name(), facts.validity_at(now))
}

/// Everything that was found, in the order in which it is told.
#[derive(Default)]
struct Report {
    dir: String,
    identity: Option<String>,
    chain: Vec<Certificate>,
    roots: Vec<Certificate>,
    sections: Vec<Section>,
}

struct Section {
    name: &'static str,
    heading: String,
    findings: Vec<Finding>,
}

struct Finding {
    level: Level,
    text: String,
    /// What else is worth knowing of it.
    remark: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Ok,
    Warning,
    Problem,
}

/// A certificate, for programs.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Certificate {
    subject: String,
    issuer: String,
    uris: Vec<String>,
    not_before: String,
    not_after: String,
    is_ca: bool,
    sha256: String,
}

impl Certificate {
    fn of(facts: &CertificateFacts) -> Self {
        Self {
            subject: facts.subject.clone(),
            issuer: facts.issuer.clone(),
            uris: facts.uris.clone(),
            not_before: rfc3339(facts.not_before),
            not_after: rfc3339(facts.not_after),
            is_ca: facts.is_ca,
            sha256: facts.fingerprint.to_string(),
        }
    }
}

impl Report {
    fn section(&mut self, name: &'static str, heading: impl Into<String>) {
        self.sections.push(Section { name, heading: heading.into(), findings: Vec::new() });
    }

    fn good(&mut self, text: impl Display) {
        self.finding(Level::Ok, text);
    }

    fn warning(&mut self, text: impl Display) {
        self.finding(Level::Warning, text);
    }

    fn problem(&mut self, text: impl Display) {
        self.finding(Level::Problem, text);
    }

    /// Adds to the last finding.
    fn remark(&mut self, text: String) {
        if let Some(last) = self.sections.last_mut().and_then(|section| section.findings.last_mut()) {
            last.remark = Some(text);
        }
    }

    fn finding(&mut self, level: Level, text: impl Display) {
        if self.sections.is_empty() {
            self.section("directory", "directory");
        }
        let text = clean_to(&text.to_string(), 1024).into_owned();
        if let Some(section) = self.sections.last_mut() {
            section.findings.push(Finding { level, text, remark: None });
        }
    }

    fn count(&self, level: Level) -> usize {
        self.sections.iter().flat_map(|section| &section.findings).filter(|finding| finding.level == level).count()
    }

    /// For people.
    fn text(&self) -> String {
        let mut out = format!("{}\n", self.dir);
        for Section { heading, findings, .. } in &self.sections {
            let _ = writeln!(out, "\n{heading}");
            for Finding { level, text, remark } in findings {
                let kind = match level {
                    Level::Ok => "ok     ",
                    Level::Warning => "warning",
                    Level::Problem => "PROBLEM",
                };
                let _ = writeln!(out, "  {kind} {text}");
                if let Some(remark) = remark {
                    let _ = writeln!(out, "          {remark}");
                }
            }
        }
        let count = |level, what: &str| {
            let number = self.count(level);
            format!("{number} {what}{}", if number == 1 { "" } else { "s" })
        };
        let verdict = if self.count(Level::Problem) == 0 { "in order" } else { "not in order" };
        let (problems, warnings) = (count(Level::Problem, "problem"), count(Level::Warning, "warning"));
        let _ = writeln!(out, "\n{verdict}: {problems}, {warnings}");
        out
    }

    /// For programs.
    fn document(&self) -> Value {
        let of_section = |section: &Section| -> Vec<Value> {
            let of_finding = |finding: &Finding| {
                let level = match finding.level {
                    Level::Ok => "ok",
                    Level::Warning => "warning",
                    Level::Problem => "problem",
                };
                json!({ "about": section.name, "level": level, "text": finding.text })
            };
            section.findings.iter().map(of_finding).collect()
        };
        json!({
            "ok": self.count(Level::Problem) == 0,
            "dir": self.dir,
            "identity": self.identity,
            "chain": self.chain,
            "roots": self.roots,
            "findings": self.sections.iter().flat_map(of_section).collect::<Vec<_>>(),
        })
    }
}

/// A time as programs read it.
fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
        KeyUsagePurpose, SanType,
    };
    use tempfile::TempDir;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// A good directory: a leaf of 24 hours, 13 of them over, so that eleven are left.
    struct Certs {
        dir: TempDir,
        clock: Clock,
    }

    impl Certs {
        fn new(uris: &[&str]) -> Self {
            let clock = Clock::system();
            let now = clock.now();
            let mut root = CertificateParams::default();
            root.distinguished_name.push(DnType::CommonName, "\u{1b}[31mroot");
            root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            (root.not_before, root.not_after) =
                ((now - 13 * HOUR).into(), (now + 80 * 24 * HOUR + Duration::from_secs(60)).into());
            let root = CertifiedIssuer::self_signed(root, KeyPair::generate().expect("a key")).expect("a root");
            let mut leaf = CertificateParams::default();
            leaf.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("ASCII"))).collect();
            leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            (leaf.not_before, leaf.not_after) =
                ((now - 13 * HOUR).into(), (now + 11 * HOUR + Duration::from_secs(60)).into());
            let key = KeyPair::generate().expect("a key");
            let leaf = leaf.signed_by(&key, &root).expect("a leaf");
            let certs = Self { dir: TempDir::new().expect("a directory"), clock };
            certs.put("cert-chain.pem", &leaf.pem(), 0o644);
            certs.put("key.pem", &key.serialize_pem(), 0o600);
            certs.put("root-cert.pem", &root.pem(), 0o644);
            certs
        }

        fn put(&self, name: &str, text: &str, mode: u32) {
            let path = self.dir.path().join(name);
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        }

        fn check(&self) -> (u8, String) {
            let mut out = Vec::new();
            let code = run(self.dir.path(), CheckOutput::Text, &mut out, &self.clock).expect("written to memory");
            (code, String::from_utf8(out).expect("text"))
        }
    }

    const ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";

    #[test]
    fn a_good_directory_is_in_order() {
        let (code, text) = Certs::new(&[ID]).check();
        assert_eq!(code, 0, "{text}");
        for part in [
            &format!("  ok      {ID}\n"),
            "  ok      trust domain cluster.local\n",
            "expires in 11h (",
            "  ok      the key belongs to the certificate\n",
            "  ok      the chain leads to a root\n",
            "expires in 80d (",
            "\n          SHA-256 ",
            "\nin order: 0 problems, 0 warnings\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        assert!(!text.contains('\u{1b}'), "names are cleaned: {text}");
    }

    #[test]
    fn what_csi_driver_spiffe_mounts_is_found_by_its_names() {
        let certs = Certs::new(&[ID]);
        let path = |name: &str| certs.dir.path().join(name);
        for (istio, mounted) in [("cert-chain.pem", "tls.crt"), ("key.pem", "tls.key"), ("root-cert.pem", "ca.crt")] {
            fs::rename(path(istio), path(mounted)).expect("renamed");
        }
        let (code, text) = certs.check();
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("own certificate (tls.crt, tls.key)") && text.contains("roots (ca.crt)"), "{text}");
        // An agent with this directory as certs_dir finds nothing in it.
        let line = format!(
            "\n          tls_config: {{ cert_file: {}, key_file: {}, ca_file: {}, spiffe: {{}} }}\n",
            path("tls.crt").display(),
            path("tls.key").display(),
            path("ca.crt").display()
        );
        assert!(
            text.contains("warning these names are not Istio's, so certs_dir and ") && text.contains(&line),
            "{text}"
        );
        // Beside Istio's, whichever of these there are, they count for nothing.
        certs.put("root-cert.pem", "", 0o644);
        assert_eq!(certs.check().0, 1);
    }

    #[test]
    fn programs_get_certificates_and_findings() {
        let certs = Certs::new(&[ID]);
        certs.put("key.pem", "", 0o600);
        let mut out = Vec::new();
        let code = run(certs.dir.path(), CheckOutput::Json, &mut out, &certs.clock).expect("written to memory");
        let document: Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!((code, &document["ok"], &document["identity"]), (1, &false.into(), &ID.into()));
        assert_eq!((&document["chain"][0]["uris"][0], &document["roots"][0]["isCa"]), (&ID.into(), &true.into()));
        let problems: Vec<_> = document["findings"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|finding| finding["level"] == "problem")
            .map(|finding| &finding["about"])
            .collect();
        assert_eq!(problems, ["certificate"], "{document}");
    }

    #[test]
    fn each_fault_is_a_problem_or_a_warning() {
        let other = KeyPair::generate().expect("a key").serialize_pem();
        type Change<'a> = &'a dyn Fn(&Certs);
        let table: [(&str, Change<'_>, u8, &str); 8] = [
            (
                "key of another",
                &|certs| certs.put("key.pem", &other, 0o600),
                1,
                "PROBLEM the private key does not belong",
            ),
            ("no key", &|certs| certs.put("key.pem", "", 0o600), 1, "holds no private key in PEM form"),
            (
                "key for all",
                &|certs| {
                    let key = fs::read_to_string(certs.dir.path().join("key.pem")).expect("a key");
                    certs.put("key.pem", &key, 0o644);
                },
                0,
                "warning key.pem can be read by other users (mode 0644)",
            ),
            (
                "other roots",
                &|certs| {
                    let other = fs::read_to_string(Certs::new(&[ID]).dir.path().join("root-cert.pem")).expect("roots");
                    certs.put("root-cert.pem", &other, 0o644);
                },
                1,
                "PROBLEM our own certificate does not chain to the roots",
            ),
            (
                "a leaf as root",
                &|certs| {
                    let leaf = fs::read_to_string(certs.dir.path().join("cert-chain.pem")).expect("a chain");
                    certs.put("root-cert.pem", &leaf, 0o644);
                },
                1,
                "PROBLEM no root is valid now",
            ),
            (
                "no roots",
                &|certs| fs::remove_file(certs.dir.path().join("root-cert.pem")).expect("removed"),
                1,
                "does not exist",
            ),
            ("overdue", &|certs| certs.clock.shift(6 * 3_600_000), 0, "its renewal is overdue"),
            ("expired", &|certs| certs.clock.shift(12 * 3_600_000), 1, "expired 59m ago"),
        ];
        for (name, change, code, part) in table {
            let certs = Certs::new(&[ID]);
            change(&certs);
            let (found, text) = certs.check();
            assert!(text.contains(part), "{name}: {part:?} is not in {text}");
            assert_eq!(found, code, "{name}: {text}");
        }
    }

    #[test]
    fn a_certificate_without_spiffe_id_is_no_problem_but_needs_a_setting() {
        let (code, text) = Certs::new(&[]).check();
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("the configuration must set tls_config.spiffe.trust_domain"), "{text}");
    }
}
