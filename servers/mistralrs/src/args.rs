//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use mistralrs_core::{ModelDType, parse_isq_value};

/// Serves a model with mistral.rs over OpenAI's API
#[derive(Debug, Clone, Parser)]
#[command(name = "loadtest-mistralrs")]
pub struct Args {
    /// Model to serve: a GGUF file, or a folder in Hugging Face's form
    #[arg(long, value_name = "PATH")]
    pub model: PathBuf,
    /// Name to serve it under [default: the file's, without its extension]
    #[arg(long, value_name = "NAME")]
    pub model_name: Option<String>,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Sequences that are computed at a time
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = at_least_one)]
    pub parallel: usize,
    /// Tokens of each sequence to reserve GPU memory for; on the CPU a sequence may be as long as the model's context
    #[arg(long, default_value_t = 2048, value_name = "TOKENS", value_parser = at_least_one)]
    pub context: usize,
    /// Threads that compute [default: one for each core]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub threads: Option<usize>,
    /// Form in which the weights of a folder are kept: auto, or one that mistral.rs quantises to, like Q8_0 or Q4K
    #[arg(long, default_value = "auto", value_name = "FORM", value_parser = weights)]
    pub weights: String,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    pub device: Device,
    /// Number format to compute in: auto, f32, f16 or bf16
    #[arg(long, default_value = "auto")]
    pub dtype: ModelDType,
    /// Be killed when the parent process dies (Linux)
    #[arg(long)]
    pub die_with_parent: bool,
}

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// The processor.
    Cpu,
    /// The first NVIDIA GPU.
    Cuda,
    /// Apple's GPU.
    Metal,
}

impl Args {
    /// The name that the model is served under.
    pub fn served_name(&self) -> String {
        let name = match self.model.is_dir() {
            true => self.model.file_name(),
            false => self.model.file_stem(),
        };
        let of_path = || name.map_or_else(|| "model".into(), |name| name.to_string_lossy().into());
        self.model_name.clone().unwrap_or_else(of_path)
    }

    /// The form that the weights are to be quantised to while they load.
    pub fn quantise_to(&self) -> Option<String> {
        (self.weights != AUTO).then(|| self.weights.clone())
    }
}

const AUTO: &str = "auto";

fn weights(form: &str) -> Result<String, String> {
    match form {
        AUTO => Ok(form.to_owned()),
        _ => parse_isq_value(form, None).map(|_| form.to_uppercase()),
    }
}

fn at_least_one(word: &str) -> Result<usize, String> {
    match word.parse() {
        Ok(0) => Err("it must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Args, String> {
        let words = "loadtest-mistralrs --model /models/tiny.gguf "
            .split_whitespace()
            .chain(words.split_whitespace());
        Args::try_parse_from(words).map_err(|error| error.to_string())
    }

    #[test]
    fn the_recipe_s_arguments_are_understood() {
        let recipe: &str = include_str!("../engine.toml");
        let list = |key: &str| {
            let (_, after) = recipe.split_once(&format!("\n{key} = [")).expect(key);
            let (list, _) = after.split_once(']').expect("the end of the list");
            list.replace(['"', ','], " ")
        };
        let filled = [list("args"), list("weights_args")].join(" ");
        let filled = [
            ("model", "/m.gguf"),
            ("model_name", "m"),
            ("host", "::1"),
            ("weights", "q8_0"),
        ]
        .iter()
        .fold(filled, |text, (name, value)| {
            text.replace(&format!("{{{name}}}"), value)
        });
        let filled = ["port", "parallel", "context", "threads"]
            .iter()
            .fold(filled, |text, name| text.replace(&format!("{{{name}}}"), "3"));
        let args = Args::try_parse_from(["x"].into_iter().chain(filled.split_whitespace())).unwrap();
        assert_eq!(
            (args.parallel, args.context, args.threads, args.port),
            (3, 3, Some(3), 3)
        );
        assert_eq!((args.served_name().as_str(), args.host.as_str()), ("m", "::1"));
        assert_eq!(args.quantise_to().as_deref(), Some("Q8_0"));
        assert!(args.die_with_parent);
    }

    #[test]
    fn what_is_not_given_is_the_model_s_own() {
        let args = parse("").unwrap();
        assert_eq!(args.served_name(), "tiny");
        assert_eq!((args.quantise_to(), args.threads), (None, None));
        assert_eq!((args.device, args.dtype), (Device::Cpu, ModelDType::Auto));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (words, why) in [
            ("--parallel 0", "at least 1"),
            ("--context none", "invalid digit"),
            ("--weights q9", "Q8_0"),
            ("--dtype f8", "not supported"),
            ("--device tpu", "possible values"),
            ("--queue 5", "unexpected argument"),
        ] {
            let error = parse(words).unwrap_err();
            assert!(error.contains(why), "{words}: {error}");
        }
    }
}
