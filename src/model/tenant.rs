//! Whose samples they are, where one receiver serves several tenants: a [`Tenant`], and the [`TenantRule`] that says it of
//! each target.
//!
//! What always holds: a [`Tenant`] can stand in a header and is one that Mimir takes; a rule gives each target one tenant or
//! none, from the labels of the target alone, and what is not certain is none.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use super::{Labels, clean, is_legacy_label_name};

/// What Mimir takes at most, and what a length of one byte can say.
const MAX_BYTES: usize = 150;

/// Names of files and of Mimir's own.
const RESERVED: [&str; 3] = [".", "..", "__mimir_cluster"];

/// A tenant of a receiver, as Mimir and its kin name one. Clones share the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(Arc<str>);

/// Why a text names no tenant.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TenantError {
    /// Nothing is there.
    #[error("it is empty")]
    Empty,
    /// More than [`MAX_BYTES`].
    #[error("it has {0} bytes, and a tenant has {MAX_BYTES} at most")]
    TooLong(usize),
    /// One that no tenant may have. Mimir separates several tenants by `|`.
    #[error("it contains {0:?}; a tenant consists of letters, digits and !-_.*'()")]
    Character(char),
    /// It means something else there.
    #[error("no tenant is called so")]
    Reserved,
}

impl Tenant {
    /// Checks a text by the rules of Mimir: 1 to 150 letters, digits and `!-_.*'()`, and none of the names that mean
    /// something else.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, TenantError> {
        match text {
            "" => Err(TenantError::Empty),
            text if text.len() > MAX_BYTES => Err(TenantError::TooLong(text.len())),
            text if RESERVED.contains(&text) => Err(TenantError::Reserved),
            text => match text.chars().find(|c| !is_allowed(*c)) {
                Some(other) => Err(TenantError::Character(other)),
                None => Ok(Self(text.into())),
            },
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!-_.*'()".contains(c)
}

impl fmt::Display for Tenant {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, out)
    }
}

/// Whether a header with this name, in small letters, says whose samples are, to Mimir, to Thanos or to a proxy. What a
/// tenant shows to be let in is no such header: it changes while he stays the same, and nobody is to see it.
pub fn names_tenant(header: &str) -> bool {
    let is_secret = ["token", "key", "secret", "auth"].iter().any(|word| header.contains(word));
    !is_secret && (header.contains("tenant") || header.contains("orgid"))
}

/// How the tenant of a target follows from its labels: a text in which `{name}` stands for the value of a label. Clones share
/// it.
#[derive(Clone, PartialEq, Eq)]
pub struct TenantRule(Arc<Rule>);

#[derive(PartialEq, Eq)]
struct Rule {
    written: String,
    parts: Vec<Part>,
    default: Option<Tenant>,
}

#[derive(PartialEq, Eq)]
enum Part {
    Text(String),
    Label(String),
}

/// Why a text is no template of tenants.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TenantRuleError {
    /// A brace without the other.
    #[error("\"{{\" begins the name of a label and \"}}\" ends it; one of them stands alone")]
    Braces,
    /// What stands between the braces.
    #[error("{:?} between braces is not the name of a label", clean(.0))]
    Name(String),
    /// What stands outside of them.
    #[error("{0:?} cannot be part of a tenant, which consists of letters, digits and !-_.*'()")]
    Character(char),
    /// It is the same for all.
    #[error("it names no label, so that all targets have the same tenant")]
    Fixed,
}

/// Why a target has no tenant by a rule.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NoTenant {
    /// It lacks this label, and there is no default.
    #[error("the target has no label {0}")]
    Missing(String),
    /// The labels come to this text, which names none.
    #[error("its labels come to {:?}: {reason}", clean(.text))]
    Invalid {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: TenantError,
    },
}

impl TenantRule {
    /// Reads a template. `default` is the tenant of targets that lack one of its labels.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(written: &str, default: Option<Tenant>) -> Result<Self, TenantRuleError> {
        let mut parts = Vec::new();
        let mut rest = written;
        while !rest.is_empty() {
            let at = rest.find(['{', '}']).unwrap_or(rest.len());
            let (text, from) = rest.split_at(at);
            if let Some(other) = text.chars().find(|c| !is_allowed(*c)) {
                return Err(TenantRuleError::Character(other));
            }
            if !text.is_empty() {
                parts.push(Part::Text(text.to_owned()));
            }
            rest = from;
            if rest.is_empty() {
                break;
            }
            let inside = rest.strip_prefix('{').ok_or(TenantRuleError::Braces)?;
            let (name, behind) = inside.split_once('}').ok_or(TenantRuleError::Braces)?;
            if !is_legacy_label_name(name) {
                return Err(TenantRuleError::Name(name.to_owned()));
            }
            parts.push(Part::Label(name.to_owned()));
            rest = behind;
        }
        let rule = Rule { written: written.to_owned(), parts, default };
        if !rule.parts.iter().any(|part| matches!(part, Part::Label(_))) {
            return Err(TenantRuleError::Fixed);
        }
        Ok(Self(Arc::new(rule)))
    }

    /// The template as it was written.
    pub fn template(&self) -> &str {
        &self.0.written
    }

    /// The tenant of targets that lack a label.
    pub fn default(&self) -> Option<&Tenant> {
        self.0.default.as_ref()
    }

    /// The labels that it names.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.0.parts.iter().filter_map(|part| match part {
            Part::Label(name) => Some(&**name),
            Part::Text(_) => None,
        })
    }

    /// The tenant of a target with these labels. Only one that lacks a label has the default; one whose labels come to
    /// what is no tenant has none.
    ///
    /// # Errors
    /// Why it has none.
    pub fn tenant_of(&self, labels: &Labels) -> Result<Tenant, NoTenant> {
        let mut text = String::new();
        for part in &self.0.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Label(name) => match labels.get(name) {
                    Some(value) => text.push_str(value),
                    None => return self.0.default.clone().ok_or_else(|| NoTenant::Missing(name.clone())),
                },
            }
        }
        Tenant::parse(&text).map_err(|reason| NoTenant::Invalid { text, reason })
    }
}

impl fmt::Debug for TenantRule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("TenantRule")
            .field("template", &self.0.written)
            .field("default", &self.0.default)
            .finish_non_exhaustive()
    }
}

/// The tenants of one target, by the rules of all receivers that have one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tenants(Vec<(TenantRule, Result<Tenant, NoTenant>)>);

impl Tenants {
    /// By each of `rules`, for a target with these labels.
    pub fn of(rules: &[TenantRule], labels: &Labels) -> Self {
        Self(rules.iter().map(|rule| (rule.clone(), rule.tenant_of(labels))).collect())
    }

    /// That by `rule`; by a rule that nobody asked for when the target was made there is none.
    pub fn by(&self, rule: &TenantRule) -> Option<&Tenant> {
        self.iter().find(|(known, _)| *known == rule).and_then(|(_, tenant)| tenant.as_ref().ok())
    }

    /// All of them, with their rules.
    pub fn iter(&self) -> impl Iterator<Item = (&TenantRule, &Result<Tenant, NoTenant>)> {
        self.0.iter().map(|(rule, tenant)| (rule, tenant))
    }

    /// Whether nobody changes hands between these and the others, as far as both say whose they are.
    pub fn agree_with(&self, others: &Self) -> bool {
        let same = |(rule, tenant)| others.iter().all(|(other, theirs)| other != rule || theirs == tenant);
        self.iter().all(same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_what_mimir_takes() {
        let longest = "a".repeat(150);
        for good in ["a", "Team-1_x.y", "!-_.*'()", "...", "__mimir_cluster_", &longest] {
            assert_eq!(Tenant::parse(good).expect(good).as_str(), good);
        }
        for bad in ["", ".", "..", "__mimir_cluster", "a|b", "a b", "a/b", "a\r\nx: y", "ä", "a:b", &"a".repeat(151)] {
            assert!(Tenant::parse(bad).is_err(), "{bad:?}");
        }
    }

    fn labels() -> Labels {
        [("namespace", "shop"), ("team", "blue|red"), ("zone", "b")].into_iter().collect()
    }

    #[test]
    fn a_template_is_filled_in() {
        for (template, tenant) in
            [("{namespace}", "shop"), ("eu-{zone}-{namespace}", "eu-b-shop"), ("{zone}{zone}", "bb")]
        {
            let rule = TenantRule::new(template, None).expect(template);
            assert_eq!(rule.tenant_of(&labels()).expect(template).as_str(), tenant);
        }
        let rule = TenantRule::new("eu-{zone}-{namespace}", None).expect("a template");
        assert_eq!(rule.labels().collect::<Vec<_>>(), ["zone", "namespace"]);
    }

    #[test]
    fn only_what_is_missing_is_the_default() {
        let default = Tenant::parse("others").ok();
        let missing =
            |default| TenantRule::new("{namespace}-{absent}", default).expect("a template").tenant_of(&labels());
        assert_eq!(missing(default.clone()).expect("the default").as_str(), "others");
        assert_eq!(missing(None), Err(NoTenant::Missing("absent".into())));
        let invalid = TenantRule::new("{team}", default).expect("a template").tenant_of(&labels());
        let error = invalid.expect_err("two tenants").to_string();
        assert!(error.contains("blue|red") && error.contains("'|'"), "{error}");
    }

    #[test]
    fn what_is_no_template_is_refused() {
        use TenantRuleError::*;
        for (text, error) in [
            ("", Fixed),
            ("shop", Fixed),
            ("{namespace", Braces),
            ("namespace}", Braces),
            ("{}", Name(String::new())),
            ("{a b}", Name("a b".into())),
            ("{{a}}", Name("{a".into())),
            ("a|{namespace}", Character('|')),
        ] {
            assert_eq!(TenantRule::new(text, None), Err(error), "{text}");
        }
    }

    #[test]
    fn tenants_agree_as_far_as_both_know() {
        let rules: Vec<_> = ["{namespace}", "{zone}"].map(|text| TenantRule::new(text, None).expect(text)).into();
        let (both, one) = (Tenants::of(&rules, &labels()), Tenants::of(&rules[..1], &labels()));
        assert!(both.agree_with(&one) && one.agree_with(&both) && both.agree_with(&Tenants::default()));
        let moved: Labels = [("namespace", "other"), ("zone", "b")].into_iter().collect();
        assert!(!one.agree_with(&Tenants::of(&rules, &moved)));
        assert!(both.by(&rules[0]).is_some() && one.by(&rules[1]).is_none());
    }
}
