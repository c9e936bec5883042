//! `loadtest engines check`: one streamed request, and the stream as it was understood.

use serde::Serialize;
use serde_json::{Value, json};

use super::access::Access;
use super::error::reason;
use super::probe::Control;
use super::recipe::{Dialect, Recipe, fill};
use super::{EngineError, Parameter, Running, honoured};

/// What one streamed answer looked like.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Findings {
    /// The HTTP status.
    pub status: u16,
    /// The content type.
    pub content_type: String,
    /// Events with data, `[DONE]` not among them.
    pub events: u32,
    /// Events that carried text.
    pub text_events: u32,
    /// The first event told the role and had no text.
    pub role_chunk: bool,
    /// The text of the answer.
    pub text: String,
    /// Why it ended, as the server says.
    pub finish_reason: Option<String>,
    /// Where usage stood: `own chunk`, `finish chunk`, `every chunk`, or nowhere.
    pub usage: Option<&'static str>,
    /// Output tokens as the server counts them.
    pub completion_tokens: Option<u64>,
    /// Output tokens for each event with text.
    pub tokens_per_event: Option<f64>,
    /// The stream ended with `[DONE]`.
    pub done: bool,
    /// Comment lines (keep-alives).
    pub comments: u32,
    /// Fields beside the usual ones that the server sends in its chunks.
    pub extra_fields: Vec<String>,
    /// What the server does with the parameters of a request.
    pub parameters: Vec<Parameter>,
}

impl Findings {
    /// Whether the server refused the request.
    pub fn refused(&self) -> bool {
        self.status >= 400
    }
}

/// Output tokens of a request that asks nothing else.
pub(super) const TOKENS: u64 = 16;

/// Fields that the reference API has in a chunk.
const USUAL: [&str; 8] = [
    "id",
    "object",
    "created",
    "model",
    "choices",
    "usage",
    "system_fingerprint",
    "service_tier",
];

/// Whoever asks a server short questions, in the engine's dialect.
pub(super) struct Asker<'a> {
    recipe: &'a Recipe,
    url: &'a str,
    model: String,
    control: Control,
}

impl Asker<'_> {
    /// What the server calls things.
    pub fn dialect(&self) -> &Dialect {
        &self.recipe.dialect
    }

    /// Sends one streamed, greedy chat request of at most [`TOKENS`] tokens with these fields changed, `null` being
    /// left out.
    pub async fn ask(&self, changes: &[(&str, Value)]) -> Result<Findings, EngineError> {
        let dialect = &self.recipe.dialect;
        let mut body = json!({
            "model": self.model,
            "messages": [{ "role": "user", "content": "Name three colours." }],
            "stream": true,
        });
        for (name, value) in &dialect.extra {
            body[name] = json!(value);
        }
        if let Some(field) = &dialect.temperature {
            body[field] = json!(0);
        }
        body[&dialect.max_tokens] = json!(TOKENS);
        if dialect.include_usage {
            body["stream_options"] = json!({ "include_usage": true });
        }
        if let Some(field) = &dialect.ignore_eos {
            body[field] = json!(dialect.ignore_eos_value);
        }
        for (name, value) in changes {
            body[*name] = value.clone();
        }
        if let Some(fields) = body.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        self.send(&body)
            .await
            .map_err(|error| unreachable(self.url, &error))
    }

    async fn send(&self, body: &Value) -> reqwest::Result<Findings> {
        let response = self.control.post("/v1/chat/completions", body).await?;
        let status = response.status().as_u16();
        let header = response
            .headers()
            .get("content-type")
            .and_then(|value| value.to_str().ok());
        let content_type = header.unwrap_or_default().to_owned();
        let text = response.text().await?;
        let understood = match status {
            400.. => Findings {
                text: text.chars().take(300).collect(),
                ..Findings::default()
            },
            _ => understand(&text),
        };
        Ok(Findings {
            status,
            content_type,
            ..understood
        })
    }
}

fn unreachable(url: &str, error: &reqwest::Error) -> EngineError {
    EngineError::Unreachable {
        url: url.into(),
        reason: reason(error),
    }
}

/// Sends a streamed chat request of at most 16 tokens and tells what came back; then a few more of the kind,
/// which show what the server does with their parameters.
///
/// # Errors
/// The server can't be reached, or an answer breaks off.
pub async fn check(recipe: &Recipe, running: &Running, access: &Access) -> Result<Findings, EngineError> {
    let url = running.base_url();
    let asker = Asker {
        recipe,
        url,
        model: fill(
            &recipe.dialect.model,
            &[("model_name", running.model_name().to_owned())],
        ),
        control: Control::new(url, access.clone()).map_err(|error| unreachable(url, &error))?,
    };
    let mut first = asker.ask(&[]).await?;
    if !first.refused() {
        first.parameters = honoured::parameters(&asker, &first).await?;
    }
    Ok(first)
}

/// Reads a whole stream.
fn understand(stream: &str) -> Findings {
    let mut found = Findings::default();
    let (mut with_usage, mut usage_alone, mut usage_at_finish) = (0, false, false);
    for line in stream.lines() {
        if line.starts_with(':') {
            found.comments += 1;
        }
        let Some(data) = line.strip_prefix("data:").map(str::trim) else {
            continue;
        };
        if data == "[DONE]" {
            found.done = true;
            continue;
        }
        let Ok(chunk) = serde_json::from_str::<Value>(data) else {
            continue;
        };
        let choice = chunk.pointer("/choices/0");
        let text = choice
            .and_then(|choice| choice.pointer("/delta/content"))
            .and_then(Value::as_str)
            .unwrap_or("");
        let role = choice.is_some_and(|choice| choice.pointer("/delta/role").is_some());
        found.role_chunk |= found.events == 0 && role && text.is_empty();
        found.events += 1;
        found.text_events += u32::from(!text.is_empty());
        found.text.push_str(text);
        let finish = choice
            .and_then(|choice| choice.get("finish_reason"))
            .and_then(Value::as_str);
        found.finish_reason = finish.map(Into::into).or(found.finish_reason);
        if let Some(usage) = chunk.get("usage").filter(|usage| usage.is_object()) {
            with_usage += 1;
            usage_alone |= choice.is_none();
            usage_at_finish |= finish.is_some();
            found.completion_tokens = usage.get("completion_tokens").and_then(Value::as_u64);
        }
        let fields = chunk.as_object().into_iter().flatten().map(|(name, _)| name);
        let new: Vec<String> = fields
            .filter(|name| !USUAL.contains(&name.as_str()) && !found.extra_fields.contains(name))
            .cloned()
            .collect();
        found.extra_fields.extend(new);
    }
    found.usage = match with_usage {
        0 => None,
        n if n > 1 => Some("every chunk"),
        _ if usage_alone => Some("own chunk"),
        _ if usage_at_finish => Some("finish chunk"),
        _ => Some("some chunk"),
    };
    let per_event = |tokens| tokens as f64 / f64::from(found.text_events);
    found.tokens_per_event = found
        .completion_tokens
        .filter(|_| found.text_events > 0)
        .map(per_event);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_of_the_reference_kind_is_understood() {
        let stream = concat!(
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n",
            ": ping\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"Red\"}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\", blue\"}}],\"timings\":{}}\n\n",
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n",
            "data: {\"choices\":[],\"usage\":{\"completion_tokens\":3}}\n\n",
            "data: [DONE]\n\n",
        );
        let found = understand(stream);
        assert!(found.role_chunk && found.done);
        assert_eq!((found.events, found.text_events, found.comments), (5, 2, 1));
        assert_eq!(
            (found.text.as_str(), found.finish_reason.as_deref()),
            ("Red, blue", Some("length"))
        );
        assert_eq!(
            (found.usage, found.tokens_per_event),
            (Some("own chunk"), Some(1.5))
        );
        assert_eq!(found.extra_fields, ["timings"]);
    }

    #[test]
    fn usage_on_the_finish_chunk_and_no_done_are_seen() {
        let stream = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}],\
                      \"usage\":{\"completion_tokens\":1}}\r\n\r\n";
        let found = understand(stream);
        assert_eq!(
            (found.usage, found.done, found.role_chunk),
            (Some("finish chunk"), false, false)
        );
    }
}
