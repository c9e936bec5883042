//! How one request shall go: the flags of the server, overridden by the request's `reference` object, by words in
//! the model's name, or by words at the start of the prompt.

use serde_json::Value;

use super::faults::Fault;

/// The schedule of a request.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Schedule {
    /// Milliseconds from the request's last byte to its first output event
    #[arg(long = "ttft-ms", default_value_t = 20.0)]
    pub ttft: f64,
    /// Milliseconds from one output event to the next; 0 is as fast as can be
    #[arg(long = "itl-ms", default_value_t = 10.0)]
    pub itl: f64,
    /// Tokens (words) of each output event
    #[arg(long, default_value_t = 1)]
    pub tokens_per_event: u64,
    /// Pad the text of each output event to at least this many bytes
    #[arg(long, default_value_t = 0)]
    pub event_bytes: usize,
    /// Each event comes up to this many milliseconds later, by seeded chance
    #[arg(long = "jitter-ms", default_value_t = 0.0)]
    pub jitter: f64,
    /// The model ends after so many tokens; without this, or with `ignore_eos`, it goes on to the request's limit
    #[arg(long)]
    pub output: Option<u64>,
}

/// A schedule, and what goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    /// When what is sent.
    pub schedule: Schedule,
    /// What is done wrong.
    pub fault: Option<Fault>,
}

impl Script {
    /// Applies one word: `ttft=5`, `itl=1`, `tokens=4`, `bytes=100`, `jitter=2`, `output=10`, or a fault.
    ///
    /// # Errors
    /// A message that names what is wrong.
    pub fn apply(&mut self, word: &str) -> Result<(), String> {
        let schedule = &mut self.schedule;
        let number = |value: &str| match value.parse::<f64>() {
            Ok(number) if (0.0..1e9).contains(&number) => Ok(number),
            _ => Err(format!("'{word}' needs a number from 0")),
        };
        match word.split_once('=') {
            Some(("ttft" | "ttft_ms", value)) => schedule.ttft = number(value)?,
            Some(("itl" | "itl_ms", value)) => schedule.itl = number(value)?,
            Some(("jitter" | "jitter_ms", value)) => schedule.jitter = number(value)?,
            Some(("tokens" | "tokens_per_event", value)) => {
                schedule.tokens_per_event = number(value)?.max(1.0) as u64
            }
            Some(("bytes" | "event_bytes", value)) => schedule.event_bytes = number(value)? as usize,
            Some(("output", value)) => schedule.output = Some(number(value)? as u64),
            Some(("fault", value)) => self.fault = Some(Fault::parse(value)?),
            _ => self.fault = Some(Fault::parse(word)?),
        }
        Ok(())
    }

    /// Applies the request's `reference` object: `{"ttft_ms": 5, "fault": "stall:after=3"}`.
    ///
    /// # Errors
    /// A message that names what is wrong.
    pub fn apply_object(&mut self, object: &Value) -> Result<(), String> {
        let fields = object.as_object().ok_or("'reference' must be an object")?;
        for (key, value) in fields {
            match value {
                Value::String(text) => self.apply(&format!("{key}={text}"))?,
                value => self.apply(&format!("{key}={value}"))?,
            }
        }
        Ok(())
    }
}

/// The words after a model's name: `reference+itl=5+stall:after=3`.
pub fn words_of_model<'a>(asked: &'a str, name: &str) -> Option<impl Iterator<Item = &'a str> + use<'a>> {
    let rest = asked.strip_prefix(name)?;
    (rest.is_empty() || rest.starts_with('+')).then(|| rest.split('+').filter(|word| !word.is_empty()))
}

/// The words at the start of a prompt: `[reference itl=5 stall:after=3] Once upon a time`.
pub fn words_of_prompt(prompt: &str) -> impl Iterator<Item = &str> {
    let words = prompt
        .strip_prefix("[reference ")
        .and_then(|rest| rest.split_once(']'));
    words.map_or("", |(words, _)| words).split_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script() -> Script {
        let schedule = Schedule {
            ttft: 20.0,
            itl: 10.0,
            tokens_per_event: 1,
            event_bytes: 0,
            jitter: 0.0,
            output: None,
        };
        Script {
            schedule,
            fault: None,
        }
    }

    #[test]
    fn words_from_everywhere() {
        let mut by_model = script();
        for word in words_of_model("m+itl=5+stall:after=3", "m").unwrap() {
            by_model.apply(word).unwrap();
        }
        let mut by_prompt = script();
        for word in words_of_prompt("[reference itl=5 stall:after=3] Tell me [x]") {
            by_prompt.apply(word).unwrap();
        }
        let mut by_object = script();
        by_object
            .apply_object(&serde_json::json!({"itl_ms": 5, "fault": "stall:after=3"}))
            .unwrap();
        assert_eq!(by_model.schedule.itl, 5.0);
        assert_eq!(by_model.fault.as_ref().unwrap().after, Some(3));
        assert_eq!(by_model, by_prompt);
        assert_eq!(by_model, by_object);
    }

    #[test]
    fn other_models_and_prompts_have_no_words() {
        assert!(words_of_model("mm", "m").is_none());
        assert!(words_of_model("other", "m").is_none());
        assert_eq!(words_of_model("m", "m").unwrap().count(), 0);
        assert_eq!(words_of_prompt("Tell me about [reference x]").count(), 0);
        assert!(script().apply("ttft=fast").is_err());
    }
}
