//! The models known by name: `servers/models.toml`.

use serde::Deserialize;
use std::sync::LazyLock;

/// One model of the registry.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The name that `--model` takes.
    pub name: String,
    /// Whether it is used where no model is named.
    #[serde(default)]
    pub default: bool,
    /// The licence of the weights.
    pub license: String,
    /// SHA-256 of the file, in lower-case hex, where it is known.
    pub sha256: Option<String>,
    /// Size of the file, where it is known.
    pub bytes: Option<u64>,
    /// Where the file is on the Hugging Face hub.
    pub hub: HubFile,
    /// Python packages that carry the file in parts, in order.
    #[serde(default)]
    pub pip: Vec<PipPart>,
}

/// A file on the Hugging Face hub.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubFile {
    /// `owner/name`.
    pub repo: String,
    /// The file's path in the repository.
    pub file: String,
}

/// A part of a model file in a Python package.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipPart {
    /// A requirement as pip takes it, with its version.
    pub package: String,
    /// The member of the wheel.
    pub member: String,
}

#[derive(Deserialize)]
struct Registry {
    model: Vec<Entry>,
}

static REGISTRY: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let shipped = include_str!("../../servers/models.toml");
    let registry: Registry =
        toml::from_str(shipped).expect("the shipped registry is valid; a test holds it so");
    registry.model
});

/// All models known by name, in the order in which they are shown.
pub fn registry() -> &'static [Entry] {
    &REGISTRY
}

/// The model used where none is named.
pub fn default_model() -> &'static Entry {
    registry()
        .iter()
        .find(|entry| entry.default)
        .unwrap_or(&registry()[0])
}

pub(super) fn find(name: &str) -> Option<&'static Entry> {
    registry()
        .iter()
        .find(|entry| entry.name.eq_ignore_ascii_case(name))
}

/// The known name most like `name`, if any is.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let likeness = |entry: &Entry| strsim::jaro_winkler(&name, &entry.name);
    let best = registry()
        .iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > 0.7).then_some(best.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_shipped_registry_is_whole() {
        let names: HashSet<&str> = registry().iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!((names.len(), registry().len()), (8, 8));
        assert_eq!(registry().iter().filter(|entry| entry.default).count(), 1);
        assert_eq!(default_model().name, "smollm2-135m-instruct");
        for entry in registry() {
            assert!(
                entry.sha256.as_ref().is_none_or(|sha| sha.len() == 64),
                "{}",
                entry.name
            );
            assert!(
                entry.pip.is_empty() || entry.sha256.is_some(),
                "{} by pip needs its checksum",
                entry.name
            );
            assert_eq!(entry.hub.repo.split('/').count(), 2, "{}", entry.name);
        }
    }

    #[test]
    fn names_are_found_whatever_their_case_and_missed_ones_have_a_neighbour() {
        assert_eq!(
            find("SmolLM2-135M-Instruct").map(|entry| entry.name.as_str()),
            Some("smollm2-135m-instruct")
        );
        assert_eq!(nearest("smollm2-135m"), Some("smollm2-135m-instruct"));
        assert_eq!(nearest("gemma3-270m"), Some("gemma-3-270m"));
        assert_eq!(nearest("zzz"), None);
    }
}
