//! What a model is made of: its format, and the bits of its weights.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use loadtest_model::gguf::Gguf;
use serde::Deserialize;
use serde_json::Value;

use super::{Model, checksum};

/// Bytes that the head of a safetensors file may have at most: its format says so.
const HEAD: u64 = 100_000_000;

impl Model {
    /// `gguf`, `safetensors` or `lmrs`; `None` for a folder without weights in a form that is known.
    pub fn format(&self) -> Option<&'static str> {
        if !self.path.is_dir() {
            return Some("gguf");
        }
        let files = checksum::files(&self.path).unwrap_or_default();
        ["safetensors", "lmrs"]
            .into_iter()
            .find(|format| files.iter().any(|file| has_extension(file, format)))
    }

    /// Bits for each weight: the tensors' bytes over their elements, times 8. `None` where the file does not tell, or where
    /// an element of a folder holds several weights.
    pub fn bits_per_weight(&self) -> Option<f64> {
        match self.path.is_dir() {
            true => of_folder(&self.path).ok()?,
            false => Gguf::open(&self.path).ok()?.bits_per_weight(),
        }
    }
}

fn has_extension(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|own| own == extension)
}

/// A tensor in the head of a safetensors file.
#[derive(Deserialize)]
struct Tensor {
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

fn of_folder(folder: &Path) -> io::Result<Option<f64>> {
    // Quantised weights are packed into wider elements.
    let config = std::fs::read(folder.join("config.json")).unwrap_or_default();
    let config: Value = serde_json::from_slice(&config).unwrap_or_default();
    if !config["quantization_config"].is_null() {
        return Ok(None);
    }
    let (mut bytes, mut elements) = (0.0, 0.0);
    for file in checksum::files(folder)? {
        // Those of the folder itself are loaded; others are copies in another form.
        if file.parent() != Some(folder) || !has_extension(&file, "safetensors") {
            continue;
        }
        for tensor in head(&file)? {
            bytes += tensor.data_offsets.1 as f64 - tensor.data_offsets.0 as f64;
            elements += tensor.shape.iter().map(|&n| n as f64).product::<f64>();
        }
    }
    Ok((elements > 0.0).then(|| 8.0 * bytes / elements))
}

/// The tensors of a safetensors file: its first eight bytes are the length of the JSON that names them.
fn head(path: &Path) -> io::Result<Vec<Tensor>> {
    let mut file = File::open(path)?;
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let mut json = Vec::new();
    file.take(u64::from_le_bytes(length).min(HEAD))
        .read_to_end(&mut json)?;
    let head: serde_json::Map<String, Value> = serde_json::from_slice(&json)?;
    let tensors = head.into_iter().filter(|(name, _)| name != "__metadata__");
    Ok(tensors
        .map(|(_, tensor)| serde_json::from_value(tensor))
        .collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn model(path: &Path) -> Model {
        Model {
            name: "m".into(),
            path: path.to_owned(),
            sha256: None,
            bytes: 0,
            source: "path".into(),
        }
    }

    #[test]
    fn a_folder_is_what_its_files_are() {
        let place = tempfile::tempdir().unwrap();
        // A name with a dot in it is no extension.
        let folder = place.path().join("SmolLM2-1.7B");
        fs::create_dir(&folder).unwrap();
        let model = model(&folder);
        assert_eq!((model.format(), model.bits_per_weight()), (None, None));
        let head = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},
            "b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}}"#;
        let file = [&(head.len() as u64).to_le_bytes()[..], head.as_bytes(), &[0; 20]].concat();
        fs::write(folder.join("model.safetensors"), file).unwrap();
        assert_eq!(
            (model.format(), model.bits_per_weight()),
            (Some("safetensors"), Some(20.0))
        );
        fs::write(
            folder.join("config.json"),
            r#"{"quantization_config":{"bits":4}}"#,
        )
        .unwrap();
        assert_eq!(model.bits_per_weight(), None);
        fs::remove_file(folder.join("model.safetensors")).unwrap();
        fs::write(folder.join("model.lmrs"), "lmrs").unwrap();
        assert_eq!(model.format(), Some("lmrs"));
    }

    #[test]
    fn a_damaged_head_is_no_figure() {
        let place = tempfile::tempdir().unwrap();
        for bytes in [
            &b"\xff\xff\xff\xff\xff\xff\xff\xff{"[..],
            b"\x02",
            b"\x02\0\0\0\0\0\0\0[]",
        ] {
            fs::write(place.path().join("model.safetensors"), bytes).unwrap();
            assert_eq!(model(place.path()).bits_per_weight(), None, "{bytes:?}");
        }
    }
}
