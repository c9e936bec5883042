//! One greedy question in the engine's dialect, and the answer in full.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use loadtest_protocol::{Logprobs, TokenLogprob};
use serde_json::{Value, json};

use super::access::Access;
use super::error::reason;
use super::probe::Control;
use super::recipe::{Recipe, fill};
use super::{EngineError, Running, logits};

/// How many of the likeliest tokens are asked for at each place; no server refuses so few.
const TOP: u64 = 5;

/// What an engine answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// Why it ended, as the server says.
    pub finish_reason: Option<String>,
    /// Tokens of the prompt, as the server counts them.
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answer, as the server counts them.
    pub output_tokens: Option<u64>,
    /// Its tokens and how likely they were, up to a sum that is the same for all tokens of a place; empty where the server
    /// does not tell, or not so that it is understood.
    pub tokens: Vec<TokenLogprob>,
    /// The server tells log probabilities that are not understood.
    pub unread: bool,
}

/// Who asks an engine for greedy answers (temperature 0).
pub struct Questioner {
    control: Control,
    chat: bool,
    /// The body but for the prompt and the log probabilities.
    body: Value,
    patience: Duration,
    /// Whether the server takes a request that asks for log probabilities.
    logprobs: AtomicBool,
}

impl Questioner {
    /// For a server that is ready. Answers have at most `max_tokens` tokens, of a chat or (`chat` false) of completions,
    /// and are waited for at most for `patience`.
    ///
    /// # Errors
    /// The engine has no field for the temperature, so that no answer of it is known to be greedy; or no client can be had.
    pub fn new(
        recipe: &Recipe,
        running: &Running,
        access: &Access,
        chat: bool,
        max_tokens: u64,
        patience: Duration,
    ) -> Result<Self, EngineError> {
        let dialect = &recipe.dialect;
        let name = running.model_name().to_owned();
        let mut body = json!({ "stream": true });
        for (key, value) in &dialect.extra {
            body[key] = json!(value);
        }
        body["model"] = fill(&dialect.model, &[("model_name", name)]).into();
        body[&dialect.max_tokens] = max_tokens.into();
        if dialect.include_usage {
            body["stream_options"] = json!({ "include_usage": true });
        }
        let Some(temperature) = &dialect.temperature else {
            return Err(EngineError::Unsupported {
                engine: recipe.name.clone(),
                what: "the temperature of a request, so that no answer of it is known to be greedy",
                key: "dialect.temperature",
            });
        };
        body[temperature] = json!(0);
        let url = running.base_url();
        let control = Control::new(url, access.clone()).map_err(|error| EngineError::Unreachable {
            url: url.into(),
            reason: reason(&error),
        })?;
        Ok(Self {
            control,
            chat,
            body,
            patience,
            logprobs: AtomicBool::new(true),
        })
    }

    /// Asks, and waits for the whole answer. Log probabilities are asked for until the server refuses them once.
    ///
    /// # Errors
    /// What went wrong, in words.
    pub async fn ask(&self, prompt: &str) -> Result<Answer, String> {
        let with = self.logprobs.load(Relaxed);
        match self.send(prompt, with).await {
            Err(Refused { status, .. }) if with && (400..500).contains(&status) && status != 429 => {
                let without = self
                    .send(prompt, false)
                    .await
                    .map_err(|refused| refused.message)?;
                self.logprobs.store(false, Relaxed);
                Ok(without)
            }
            other => other.map_err(|refused| refused.message),
        }
    }

    async fn send(&self, prompt: &str, logprobs: bool) -> Result<Answer, Refused> {
        let mut body = self.body.clone();
        let path = match self.chat {
            true => {
                body["messages"] = json!([{ "role": "user", "content": prompt }]);
                "/v1/chat/completions"
            }
            false => {
                body["prompt"] = prompt.into();
                "/v1/completions"
            }
        };
        match (logprobs, self.chat) {
            (true, true) => {
                body["logprobs"] = true.into();
                body["top_logprobs"] = TOP.into();
            }
            (true, false) => body["logprobs"] = TOP.into(),
            (false, _) => {}
        }
        let failed = |error: reqwest::Error| Refused {
            status: 0,
            message: reason(&error),
        };
        let response = self
            .control
            .post_within(path, &body, self.patience)
            .await
            .map_err(failed)?;
        let status = response.status().as_u16();
        let text = response.text().await.map_err(failed)?;
        if status != 200 {
            let short: String = text.chars().take(300).collect();
            return Err(Refused {
                status,
                message: format!("HTTP {status}: {short}"),
            });
        }
        read(&text).map_err(|message| Refused { status, message })
    }
}

/// Why there is no answer; status 0 where there was none either.
struct Refused {
    status: u16,
    message: String,
}

/// Reads a whole stream.
fn read(stream: &str) -> Result<Answer, String> {
    let mut answer = Answer::default();
    let payloads = stream.lines().filter_map(|line| line.strip_prefix("data:"));
    let mut ended = false;
    for data in payloads.map(str::trim) {
        if data == "[DONE]" {
            ended = true;
            continue;
        }
        let chunk: Value =
            serde_json::from_str(data).map_err(|error| format!("an event is no JSON: {error}"))?;
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            return Err(error["message"]
                .as_str()
                .map_or_else(|| error.to_string(), str::to_owned));
        }
        let usage = |key: &str| chunk.pointer(&format!("/usage/{key}")).and_then(Value::as_u64);
        answer.prompt_tokens = usage("prompt_tokens").or(answer.prompt_tokens);
        answer.output_tokens = usage("completion_tokens").or(answer.output_tokens);
        let Some(choice) = chunk.pointer("/choices/0") else {
            continue;
        };
        let text = choice.pointer("/delta/content").or(choice.get("text"));
        answer
            .text
            .push_str(text.and_then(Value::as_str).unwrap_or_default());
        if let Some(finish) = choice.get("finish_reason").and_then(Value::as_str) {
            answer.finish_reason = Some(finish.to_owned());
            ended = true;
        }
        if let Some(told) = choice.get("logprobs").filter(|told| told.is_object()) {
            match tokens(told) {
                Some(tokens) => answer.tokens.extend(tokens),
                None => answer.unread = true,
            }
        }
    }
    if answer.unread {
        // Tokens with gaps between them are no tokens of the answer's text.
        answer.tokens.clear();
    }
    match ended {
        true => Ok(answer),
        false => Err("the stream broke off".to_owned()),
    }
}

/// The tokens of an event, if their log probabilities are understood.
fn tokens(told: &Value) -> Option<Vec<TokenLogprob>> {
    if let Some(token) = logits::token(told) {
        return Some(vec![token]);
    }
    if !["content", "tokens"].iter().any(|key| told.get(key).is_some()) {
        return None;
    }
    let told: Logprobs = serde_json::from_value(told.clone()).ok()?;
    Some(told.into_tokens())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chat_and_a_completion_are_read_alike() {
        let chat = concat!(
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"Re\"},\"logprobs\":{\"content\":[{\"token\":\"Re\",\"logprob\":-0.5,",
            "\"top_logprobs\":[{\"token\":\"Re\",\"logprob\":-0.5}]}]}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"d\"},\"logprobs\":null}]}\n\n",
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n",
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\n",
            "data: [DONE]\n\n",
        );
        let found = read(chat).unwrap();
        assert_eq!(
            (found.text.as_str(), found.finish_reason.as_deref()),
            ("Red", Some("length"))
        );
        assert_eq!((found.prompt_tokens, found.output_tokens), (Some(9), Some(2)));
        assert_eq!(found.tokens.len(), 1);
        let completion = "data: {\"choices\":[{\"text\":\"Red\",\"finish_reason\":\"stop\"}]}\n\n";
        assert_eq!(read(completion).unwrap().text, "Red");
    }

    #[test]
    fn log_probabilities_that_are_not_understood_are_seen() {
        let stream = |second: &str| {
            let chunk = |text: &str, told: &str| {
                format!(
                    "data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}},\"logprobs\":{told}}}]}}\n\n"
                )
            };
            let first = r#"{"token":"a","logprob":1.4,"bytes":[97],"top_logprobs":[{"token":7,"logprob":1.4,"bytes":"a"}]}"#;
            read(&(chunk("a", first) + &chunk("b", second) + "data: [DONE]\n\n")).unwrap()
        };
        let two = stream(r#"{"token":"b","logprob":1.4,"bytes":[98],"top_logprobs":[]}"#);
        assert_eq!((two.tokens.len(), two.unread), (2, false));
        for strange in ["{\"b\":0.5}", r#"{"content":[{"b":0.5}]}"#] {
            let found = stream(strange);
            assert_eq!(
                (found.text.as_str(), found.tokens.len(), found.unread),
                ("ab", 0, true)
            );
        }
        assert!(!stream(r#"{"content":null,"refusal":null}"#).unread);
    }

    #[test]
    fn what_is_no_whole_answer_is_an_error() {
        let begun = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
        assert_eq!(read(begun).unwrap_err(), "the stream broke off");
        let error = "data: {\"error\":{\"message\":\"out of memory\"}}\n\n";
        assert_eq!(read(error).unwrap_err(), "out of memory");
        assert!(read("data: {\n\n").unwrap_err().contains("no JSON"));
    }
}
