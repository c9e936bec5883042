//! From a path to a running mistral.rs.

use std::path::Path;
use std::thread::available_parallelism;

use anyhow::{Context, anyhow, ensure};
use axum::Router;
use loadtest_model::gguf::Gguf;
use mistralrs_core::{ModelDType, ModelSelected, TokenSource};
use mistralrs_server_core::mistralrs_for_server_builder::{MistralRsForServerBuilder, ModelConfig};
use mistralrs_server_core::mistralrs_server_router_builder::MistralRsServerRouterBuilder;
use serde_json::{Value, json};

use crate::args::{Args, Device};

/// The architectures whose GGUF files mistral.rs computes; another one makes it panic.
const GGUF_ARCHITECTURES: [&str; 8] = [
    "llama",
    "mistral3",
    "phi2",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3moe",
    "starcoder2",
];

/// The version of mistralrs-core in Cargo.toml.
const MISTRALRS_VERSION: &str = "0.8.1";

/// What a loaded model is served by.
pub struct Loaded {
    /// mistral.rs's routes.
    pub routes: Router,
    /// The settings that it has, for `/props`.
    pub props: Value,
}

/// Loads the model and starts mistral.rs's engine, which warms up by one token.
///
/// # Errors
/// If the model cannot be read or is none that mistral.rs computes, or there is no such device.
pub async fn load(args: &Args) -> anyhow::Result<Loaded> {
    built_for(args.device)?;
    let name = args.served_name();
    let model = ModelConfig::new(name.clone(), selected(args)?).with_alias(name);
    let mut builder = MistralRsForServerBuilder::new()
        .with_model_config(model)
        .with_max_seqs(args.parallel)
        .with_in_situ_quant_optional(args.quantise_to())
        // A load test's prompts are to be computed, each time.
        .with_prefix_cache_n(0)
        .with_token_source(TokenSource::None)
        .with_cpu(args.device == Device::Cpu);
    if args.device != Device::Cpu {
        builder = builder.with_paged_ctxt_len(args.parallel * args.context);
    }
    let engine = builder.build().await?;
    let config = engine.config(None).map_err(|error| anyhow!(error))?;
    ensure!(
        config.device.is_cpu() == (args.device == Device::Cpu),
        "no such device was found: --device {:?}",
        args.device
    );
    let props = props(args, config.max_seq_len);
    let routes = MistralRsServerRouterBuilder::new()
        .with_mistralrs(engine)
        .build()
        .await?;
    Ok(Loaded { routes, props })
}

fn built_for(device: Device) -> anyhow::Result<()> {
    let (built, feature) = match device {
        Device::Cpu => return Ok(()),
        Device::Cuda => (cfg!(feature = "cuda"), "cuda"),
        Device::Metal => (cfg!(feature = "metal"), "metal"),
    };
    ensure!(built, "this program was built without `--features {feature}`");
    Ok(())
}

/// The model as mistral.rs is told of it. Its path exists, so that nothing is looked for on a hub.
fn selected(args: &Args) -> anyhow::Result<ModelSelected> {
    let path = std::path::absolute(&args.model)?;
    // Beyond these mistral.rs may put layers elsewhere than on the GPU; they bound nothing on the CPU.
    let max_seq_len = args.context;
    let max_batch_size = if args.device == Device::Cpu {
        1
    } else {
        args.parallel
    };
    if path.is_dir() {
        return Ok(ModelSelected::Plain {
            model_id: text(&path)?,
            tokenizer_json: None,
            arch: None,
            dtype: args.dtype,
            topology: None,
            organization: None,
            write_uqff: None,
            from_uqff: None,
            imatrix: None,
            calibration_file: None,
            max_seq_len,
            max_batch_size,
            hf_cache_path: None,
            matformer_config_path: None,
            matformer_slice_name: None,
        });
    }
    let architecture = Gguf::open(&path)?.architecture().unwrap_or("none").to_owned();
    ensure!(
        GGUF_ARCHITECTURES.contains(&architecture.as_str()),
        "mistral.rs {MISTRALRS_VERSION} computes GGUF files of the architectures {}; this one's is {architecture}. The \
         model's folder with safetensors may do",
        GGUF_ARCHITECTURES.join(", "),
    );
    ensure!(
        args.quantise_to().is_none(),
        "--weights is for folders: the weights of a GGUF file stay as they are"
    );
    let (folder, file) = (
        path.parent().unwrap_or(Path::new("/")),
        path.file_name().unwrap_or_default(),
    );
    Ok(ModelSelected::GGUF {
        tok_model_id: None,
        quantized_model_id: text(folder)?,
        quantized_filename: text(Path::new(file))?,
        dtype: args.dtype,
        topology: None,
        max_seq_len,
        max_batch_size,
    })
}

fn text(path: &Path) -> anyhow::Result<String> {
    let text = path
        .to_str()
        .context("mistral.rs takes only paths that are UTF-8")?;
    Ok(text.to_owned())
}

/// The settings that the server has. Those that mistral.rs does not tell are `null`.
fn props(args: &Args, max_seq_len: Option<usize>) -> Value {
    let cores = || available_parallelism().map_or(1, usize::from);
    let weights = match (args.model.is_dir(), args.quantise_to(), args.dtype) {
        (false, ..) => Some("as in the file".to_owned()),
        (true, None, ModelDType::Auto) => None,
        (true, None, dtype) => Some(dtype.to_string()),
        (true, form, _) => form,
    };
    json!({
        "engine": "mistralrs",
        "version": MISTRALRS_VERSION,
        "model": args.served_name(),
        "parallel": args.parallel,
        "context": max_seq_len,
        "threads": args.threads.unwrap_or_else(cores),
        "weights": weights,
        "prefix_cache": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn args(words: &[&str]) -> Args {
        Args::try_parse_from(["x"].iter().chain(words)).unwrap()
    }

    fn refused(words: &[&str]) -> String {
        match selected(&args(words)) {
            Ok(_) => panic!("{words:?} was accepted"),
            Err(error) => format!("{error:#}"),
        }
    }

    const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/tiny.gguf");

    #[test]
    fn a_file_is_named_by_its_folder_and_a_folder_by_itself() {
        let ModelSelected::GGUF {
            quantized_model_id,
            quantized_filename,
            tok_model_id,
            ..
        } = selected(&args(&["--model", TINY])).unwrap()
        else {
            panic!("no GGUF")
        };
        assert_eq!(
            Path::new(&quantized_model_id).join(&quantized_filename),
            Path::new(TINY)
        );
        assert_eq!((quantized_filename.as_str(), tok_model_id), ("tiny.gguf", None));

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let ModelSelected::Plain { model_id, dtype, .. } =
            selected(&args(&["--model", path, "--weights", "q4k", "--dtype", "f32"])).unwrap()
        else {
            panic!("no folder")
        };
        assert_eq!((model_id.as_str(), dtype), (path, ModelDType::F32));
    }

    #[test]
    fn what_mistral_rs_cannot_load_is_refused_before_it_panics() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let tiny = std::fs::read(TINY).unwrap();
        let at = tiny.windows(5).position(|word| word == b"llama").unwrap();
        let mut other = tiny.clone();
        other[at..at + 5].copy_from_slice(b"gemma");

        let message = refused(&["--model", &write("other.gguf", &other)]);
        assert!(message.contains("this one's is gemma"), "{message}");
        let message = refused(&["--model", &write("cut.gguf", &tiny[..100])]);
        assert!(message.contains("cut.gguf"), "{message}");
        let message = refused(&["--model", "/nowhere/model.gguf"]);
        assert!(message.contains("/nowhere/model.gguf"), "{message}");
        let message = refused(&["--model", TINY, "--weights", "Q8_0"]);
        assert!(message.contains("--weights is for folders"), "{message}");
    }

    #[test]
    fn a_device_that_the_program_was_not_built_for_is_refused() {
        for (device, built) in [
            (Device::Cpu, true),
            (Device::Cuda, cfg!(feature = "cuda")),
            (Device::Metal, cfg!(feature = "metal")),
        ] {
            assert_eq!(built_for(device).is_ok(), built, "{device:?}");
        }
    }

    #[test]
    fn settings_are_told_as_they_are() {
        let told = props(
            &args(&[
                "--model",
                TINY,
                "--parallel",
                "4",
                "--context",
                "99",
                "--threads",
                "2",
            ]),
            Some(8192),
        );
        assert_eq!(told["parallel"], 4);
        assert_eq!(
            told["context"], 8192,
            "the model's: mistral.rs has no other bound"
        );
        assert_eq!(
            (&told["threads"], &told["weights"]),
            (&json!(2), &json!("as in the file"))
        );
        let folder = tempfile::tempdir().unwrap();
        let told = props(&args(&["--model", folder.path().to_str().unwrap()]), None);
        assert_eq!((&told["context"], &told["weights"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn the_version_is_the_one_that_is_locked() {
        let (_, package) = include_str!("../Cargo.lock")
            .split_once("name = \"mistralrs-core\"")
            .unwrap();
        assert!(
            package
                .trim_start()
                .starts_with(&format!("version = \"{MISTRALRS_VERSION}\""))
        );
    }
}
