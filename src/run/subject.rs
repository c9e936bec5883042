//! The model under test: its file, its tokenizer, its name.

use std::sync::Arc;

use anyhow::Context;
use loadtest_model::gguf::Gguf;
use loadtest_model::{ModelText, Special};

use crate::engine::{Kind, Recipe};
use crate::load::CountTokens;
use crate::measure::result::ModelResult;
use crate::model::{self, Model};
use crate::profile::Profile;

use super::{Shown, Usage};

/// The model that `spec` names, else the default one, downloaded if need be.
///
/// # Errors
/// [`Usage`] when `spec` names nothing; else if its file is broken or no source has it.
pub fn model(spec: Option<&str>, status: &Shown<'_>) -> anyhow::Result<Model> {
    let spec = spec.unwrap_or(&model::default_model().name);
    // Nothing is measured before there is a model.
    let found = status.interrupt().at_once(|| model::resolve(spec, status));
    found.map_err(|error| match error.is_usage() {
        true => Usage(error.into()).into(),
        false => error.into(),
    })
}

/// The model under test.
pub struct Subject {
    /// Its file or folder; absent when the servers run already.
    model: Option<Model>,
    /// The name that servers are asked for; absent when the server is to say.
    name: Option<String>,
    text: Option<Arc<ModelText>>,
}

impl Subject {
    /// Finds the model, downloads it if need be, and reads its tokenizer.
    ///
    /// # Errors
    /// As [`model()`], and if the tokenizer cannot be read.
    pub fn resolve(profile: &Profile, recipes: &[Recipe], status: &Shown<'_>) -> anyhow::Result<Subject> {
        let tokenizer = |path: &std::path::Path| {
            ModelText::open(path).with_context(|| format!("the tokenizer of {}", path.display()))
        };
        let named = profile.requests.tokenizer.as_deref().map(tokenizer).transpose()?;
        if recipes.iter().all(|recipe| recipe.kind == Kind::Attach) {
            return Ok(Subject {
                model: None,
                name: profile.model.clone(),
                text: named.map(Arc::new),
            });
        }
        let model = model(profile.model.as_deref(), status)?;
        let text = match named {
            Some(text) => text,
            None => tokenizer(&model.path)?,
        };
        Ok(Subject {
            name: Some(model.name.clone()),
            model: Some(model),
            text: Some(Arc::new(text)),
        })
    }

    /// The name that servers are asked for, where it is known.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The model's file or folder, where servers are started here.
    pub fn model(&self) -> Option<&Model> {
        self.model.as_ref()
    }

    /// Tokens of a text, by the model's tokenizer, where there is one.
    pub fn count(&self) -> Option<impl Fn(&str) -> usize + '_> {
        let text = self.text.as_ref()?;
        Some(move |prompt: &str| text.encode(prompt, Special::Plain).map_or(0, |ids| ids.len()))
    }

    /// The same for texts that a model wrote, on any thread.
    pub fn count_output(&self) -> Option<CountTokens> {
        let text = self.text.clone()?;
        Some(Arc::new(move |answer: &str| {
            u32::try_from(text.encode(answer, Special::Plain).ok()?.len()).ok()
        }))
    }

    /// What stands in `run.json`.
    pub fn describe(&self) -> ModelResult {
        let format = |model: &Model| {
            model
                .path
                .extension()
                .map(|extension| extension.to_string_lossy().into_owned())
        };
        ModelResult {
            name: self.name.clone().unwrap_or_default(),
            path: self.model.as_ref().map(|model| model.path.display().to_string()),
            path_hash: self.model.as_ref().and_then(|model| model.sha256.clone()),
            bytes: self.model.as_ref().map(|model| model.bytes),
            format: self.model.as_ref().and_then(format),
            bits_per_weight: self
                .model
                .as_ref()
                .and_then(|model| Gguf::open(&model.path).ok()?.bits_per_weight()),
        }
    }

    /// What a reader must know of the prompts' lengths.
    pub fn note(&self) -> Option<String> {
        let words = "prompt lengths were counted in words: no tokenizer is known; name one with --tokenizer";
        self.text.is_none().then(|| words.to_owned())
    }
}
