//! From a request body to a checked request: honoured in full, or refused by the field's name.

use loadtest_protocol::{AskedLogprobs, ChatRequest, CompletionRequest, Params, Prompt, Stop};
use serde_json::{Map, Value};

use crate::{Input, Refusal, Request};

/// Most stop texts of a request, as in OpenAI's API.
const MAX_STOP: usize = 4;

/// Most of the likeliest tokens that are told at each place, as in OpenAI's API.
const MAX_TOP_LOGPROBS: u64 = 20;

/// Which endpoint was asked; the answers differ in shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completions,
}

/// A checked request and the form its answer shall have.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Which endpoint was asked.
    pub endpoint: Endpoint,
    /// The model asked for, if one was named.
    pub model: Option<String>,
    /// What to generate.
    pub request: Request,
    /// Whether to stream.
    pub stream: bool,
    /// Whether a stream's last chunk counts the tokens.
    pub include_usage: bool,
    /// Whether every chunk of a stream counts the tokens so far.
    pub continuous_usage: bool,
    /// The one field beyond the API that this server takes, if it came.
    pub extension: Option<Value>,
}

impl Call {
    /// Checks a request body. `extension` names a field beyond the API that the caller knows how to honour.
    ///
    /// # Errors
    /// If it is no request, or asks for something that this server does not do.
    pub fn parse(endpoint: Endpoint, body: &[u8], extension: Option<&str>) -> Result<Self, Refusal> {
        let (input, mut params) = match endpoint {
            Endpoint::Chat => {
                let request = ChatRequest::parse(body)?;
                (
                    Input::Messages(flatten_contents(request.messages)?),
                    request.params,
                )
            }
            Endpoint::Completions => {
                let request = CompletionRequest::parse(body)?;
                (single_prompt(request.prompt)?, request.params)
            }
        };
        let extension = extension.and_then(|name| params.rest.remove(name));
        refuse_the_rest(&params.rest)?;
        check_ranges(&params)?;
        let stream = params.stream.unwrap_or(false);
        let options = params.stream_options.unwrap_or_default();
        if params.stream_options.is_some() && !stream {
            return Err(Refusal::param(
                "stream_options",
                "'stream_options' is only for requests with 'stream': true.",
            ));
        }
        Ok(Self {
            endpoint,
            model: params.model.take(),
            stream,
            include_usage: options.include_usage,
            continuous_usage: options.continuous_usage_stats,
            extension,
            request: generation_request(endpoint, input, params)?,
        })
    }
}

fn generation_request(endpoint: Endpoint, input: Input, params: Params) -> Result<Request, Refusal> {
    let logprobs = logprobs(endpoint, &params)?;
    let stop = params.stop.map(Stop::into_vec).unwrap_or_default();
    if stop.len() > MAX_STOP {
        return Err(Refusal::param(
            "stop",
            format!("'stop' has {} texts; at most {MAX_STOP} are allowed.", stop.len()),
        ));
    }
    if stop.iter().any(String::is_empty) {
        return Err(Refusal::param(
            "stop",
            "'stop' holds an empty text, which would end every output at once.",
        ));
    }
    // The older endpoint's default, as OpenAI documents it; a chat goes on until the model ends.
    let default_max = matches!(input, Input::Text(_) | Input::Tokens(_)).then_some(16);
    let max_tokens = params.max_completion_tokens.or(params.max_tokens).or(default_max);
    let min_tokens = params.min_tokens.unwrap_or(0);
    if max_tokens.is_some_and(|max| min_tokens > max) {
        return Err(Refusal::param(
            "min_tokens",
            format!("'min_tokens' is {min_tokens}, above the most tokens asked for."),
        ));
    }
    Ok(Request {
        input,
        max_tokens,
        min_tokens,
        temperature: params.temperature.unwrap_or(1.0) as f32,
        top_p: params.top_p.unwrap_or(1.0) as f32,
        top_k: params
            .top_k
            .and_then(|k| usize::try_from(k).ok())
            .filter(|k| *k > 0),
        seed: params.seed.map(i64::cast_unsigned),
        stop,
        ignore_eos: params.ignore_eos.unwrap_or(false),
        logprobs,
    })
}

/// Of how many of the likeliest tokens log probabilities are wanted, if they are.
fn logprobs(endpoint: Endpoint, params: &Params) -> Result<Option<usize>, Refusal> {
    let (wanted, param) = match (endpoint, params.logprobs, params.top_logprobs) {
        (Endpoint::Chat, Some(AskedLogprobs::Wanted(true)), top) => (top.unwrap_or(0), "top_logprobs"),
        (Endpoint::Completions, Some(AskedLogprobs::Top(top)), None) => (top, "logprobs"),
        (_, None | Some(AskedLogprobs::Wanted(false)), None | Some(0)) => return Ok(None),
        (Endpoint::Chat, Some(AskedLogprobs::Top(_)), _) => {
            return Err(Refusal::param("logprobs", "'logprobs' must be true or false."));
        }
        (Endpoint::Completions, Some(AskedLogprobs::Wanted(true)), _) => {
            return Err(Refusal::param("logprobs", "'logprobs' must be a whole number."));
        }
        _ => {
            let message = "'top_logprobs' is only for chats with 'logprobs': true.";
            return Err(Refusal::param("top_logprobs", message));
        }
    };
    if wanted > MAX_TOP_LOGPROBS {
        return Err(Refusal::param(
            param,
            format!("'{param}' is {wanted}; at most {MAX_TOP_LOGPROBS} are told."),
        ));
    }
    Ok(usize::try_from(wanted).ok())
}

fn check_ranges(params: &Params) -> Result<(), Refusal> {
    if let Some(n) = params.n.filter(|n| *n != 1) {
        return Err(Refusal::param(
            "n",
            format!("'n' is {n}; this server gives 1 answer a request."),
        ));
    }
    if let Some(t) = params.temperature.filter(|t| !(0.0..=2.0).contains(t)) {
        return Err(Refusal::param(
            "temperature",
            format!("'temperature' is {t}; it must be from 0 to 2."),
        ));
    }
    if let Some(p) = params.top_p.filter(|p| !(*p > 0.0 && *p <= 1.0)) {
        return Err(Refusal::param(
            "top_p",
            format!("'top_p' is {p}; it must be above 0 and at most 1."),
        ));
    }
    if let Some(k) = params.top_k.filter(|k| *k < -1) {
        return Err(Refusal::param(
            "top_k",
            format!("'top_k' is {k}; it must be a number of tokens, or 0 or -1 for all."),
        ));
    }
    for (name, value) in [
        ("max_tokens", params.max_tokens),
        ("max_completion_tokens", params.max_completion_tokens),
    ] {
        if value == Some(0) {
            return Err(Refusal::param(
                name,
                format!("'{name}' is 0; it must be at least 1."),
            ));
        }
    }
    Ok(())
}

/// Refuses every field that asks for something; one that asks for nothing (`"n_probs": null`, a penalty of 0)
/// is honoured by doing nothing.
fn refuse_the_rest(rest: &Map<String, Value>) -> Result<(), Refusal> {
    match rest.iter().find(|(name, value)| !asks_for_nothing(name, value)) {
        None => Ok(()),
        Some((name, value)) => {
            let shown: String = value.to_string().chars().take(60).collect();
            Err(Refusal::param(
                name,
                format!("'{name}' = {shown} is not supported by this server."),
            ))
        }
    }
}

fn asks_for_nothing(name: &str, value: &Value) -> bool {
    let is_empty =
        || value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty);
    let is_number = |number: f64| value.as_f64() == Some(number);
    value.is_null()
        || match name {
            // For the operator's books, without effect on the output.
            "user" | "metadata" | "service_tier" | "safety_identifier" | "prompt_cache_key"
            | "cache_prompt" => true,
            "frequency_penalty" | "presence_penalty" | "min_p" => is_number(0.0),
            "repetition_penalty" | "repeat_penalty" | "best_of" => is_number(1.0),
            "echo" | "store" | "parallel_tool_calls" => value == false,
            "logit_bias" | "tools" | "functions" => is_empty(),
            "tool_choice" => value == "none" || value == "auto",
            "response_format" => value["type"] == "text",
            "suffix" => value == "",
            _ => false,
        }
}

fn single_prompt(prompt: Prompt) -> Result<Input, Refusal> {
    let several = |count: usize| {
        Refusal::param(
            "prompt",
            format!("'prompt' holds {count} prompts; this server takes 1 a request."),
        )
    };
    let empty = || Refusal::param("prompt", "'prompt' is empty.");
    match prompt {
        Prompt::Text(text) => Ok(Input::Text(text)),
        Prompt::Tokens(tokens) if tokens.is_empty() => Err(empty()),
        Prompt::Tokens(tokens) => Ok(Input::Tokens(tokens)),
        Prompt::Texts(mut texts) if texts.len() == 1 => texts.pop().map(Input::Text).ok_or_else(empty),
        Prompt::TokenLists(mut lists) if lists.len() == 1 => lists
            .pop()
            .filter(|list| !list.is_empty())
            .map(Input::Tokens)
            .ok_or_else(empty),
        Prompt::Texts(texts) => Err(several(texts.len())),
        Prompt::TokenLists(lists) => Err(several(lists.len())),
    }
}

/// Joins the text parts of every message: chat templates take a string.
fn flatten_contents(mut messages: Vec<Value>) -> Result<Vec<Value>, Refusal> {
    for (i, message) in messages.iter_mut().enumerate() {
        if !message["role"].is_string() {
            return Err(Refusal::param(
                "messages",
                format!("'messages[{i}].role' must be a string."),
            ));
        }
        let content = match message.get("content") {
            None | Some(Value::Null | Value::String(_)) => continue,
            Some(Value::Array(parts)) => parts.iter().map(text_of_part).collect::<Option<String>>(),
            Some(_) => None,
        };
        let text = content.ok_or_else(|| {
            Refusal::param(
                "messages",
                format!("'messages[{i}].content' must be text or parts of text."),
            )
        })?;
        message["content"] = Value::String(text);
    }
    Ok(messages)
}

fn text_of_part(part: &Value) -> Option<&str> {
    (part["type"] == "text").then(|| part["text"].as_str()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(fields: &str) -> Result<Call, Refusal> {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"hi"}}]{fields}}}"#);
        Call::parse(Endpoint::Chat, body.as_bytes(), None)
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        let refused = [
            ("n", "2"),
            ("n", "0"),
            ("temperature", "-0.1"),
            ("temperature", "2.1"),
            ("temperature", "\"hot\""),
            ("top_p", "0"),
            ("top_p", "1.5"),
            ("max_tokens", "0"),
            ("max_completion_tokens", "0"),
            ("max_tokens", "-4"),
            ("stop", r#"["1","2","3","4","5"]"#),
            ("stop", r#""""#),
            ("stream_options", r#"{"include_usage":true}"#),
            ("tools", r#"[{"type":"function"}]"#),
            ("tool_choice", r#""required""#),
            ("logprobs", "2"),
            ("logprobs", "\"yes\""),
            ("top_logprobs", "3"),
            ("response_format", r#"{"type":"json_object"}"#),
            ("frequency_penalty", "0.5"),
            ("presence_penalty", "-1"),
            ("logit_bias", r#"{"50256":-100}"#),
            ("top_k", "-2"),
            ("no_such_field", "1"),
        ];
        for (name, value) in refused {
            let refusal = chat(&format!(r#","{name}":{value}"#)).unwrap_err();
            assert_eq!(refusal.status, 400, "{name}");
            assert_eq!(refusal.detail.param.as_deref(), Some(name));
        }
    }

    #[test]
    fn what_asks_for_nothing_is_accepted() {
        let fields = r#","n":1,"tools":[],"tool_choice":"auto","logprobs":false,"response_format":{"type":"text"},
            "frequency_penalty":0,"presence_penalty":0.0,"logit_bias":{},"user":"u","top_k":-1,"anything":null"#;
        assert!(chat(fields).is_ok());
    }

    #[test]
    fn defaults_are_the_apis() {
        let call = chat("").unwrap();
        assert_eq!((call.request.temperature, call.request.top_p), (1.0, 1.0));
        assert_eq!(call.request.max_tokens, None);
        assert!(!call.stream && !call.request.ignore_eos);
        let completion = Call::parse(Endpoint::Completions, br#"{"prompt":["a"]}"#, None).unwrap();
        assert_eq!(completion.request.input, Input::Text("a".into()));
        assert_eq!(completion.request.max_tokens, Some(16));
    }

    #[test]
    fn logprobs_are_asked_for_as_each_endpoint_has_it() {
        let of_chat = |fields| chat(fields).map(|call| call.request.logprobs);
        assert_eq!(of_chat(r#","logprobs":true"#).unwrap(), Some(0));
        assert_eq!(
            of_chat(r#","logprobs":true,"top_logprobs":20"#).unwrap(),
            Some(20)
        );
        assert_eq!(of_chat(r#","logprobs":false,"top_logprobs":0"#).unwrap(), None);
        let many = of_chat(r#","logprobs":true,"top_logprobs":21"#).unwrap_err();
        assert_eq!(many.detail.param.as_deref(), Some("top_logprobs"));
        let completion = |value: &str| {
            let body = format!(r#"{{"prompt":"a","logprobs":{value}}}"#);
            let call = Call::parse(Endpoint::Completions, body.as_bytes(), None);
            call.map(|call| call.request.logprobs)
        };
        assert_eq!(completion("0").unwrap(), Some(0));
        assert_eq!(completion("5").unwrap(), Some(5));
        assert_eq!(completion("null").unwrap(), None);
        for wrong in ["true", "21"] {
            let refusal = completion(wrong).unwrap_err();
            assert_eq!(refusal.detail.param.as_deref(), Some("logprobs"), "{wrong}");
        }
    }

    #[test]
    fn several_prompts_are_refused() {
        for prompt in [r#"["a","b"]"#, "[[1],[2]]", "[]", "[[]]"] {
            let body = format!(r#"{{"prompt":{prompt}}}"#);
            let refusal = Call::parse(Endpoint::Completions, body.as_bytes(), None).unwrap_err();
            assert_eq!(refusal.detail.param.as_deref(), Some("prompt"), "{prompt}");
        }
    }

    #[test]
    fn text_parts_are_joined_and_images_refused() {
        let parts = |part: &str| {
            let body = format!(
                r#"{{"messages":[{{"role":"user","content":[{{"type":"text","text":"a"}},{part}]}}]}}"#
            );
            Call::parse(Endpoint::Chat, body.as_bytes(), None)
        };
        let joined = parts(r#"{"type":"text","text":"b"}"#).unwrap().request.input;
        let Input::Messages(messages) = joined else {
            panic!("a chat has messages")
        };
        assert_eq!(messages[0]["content"], "ab");
        let refusal = parts(r#"{"type":"image_url","image_url":{"url":"x"}}"#).unwrap_err();
        assert_eq!(refusal.detail.param.as_deref(), Some("messages"));
    }

    #[test]
    fn an_extension_is_taken_only_by_its_name() {
        let body = br#"{"prompt":"a","reference":{"ttft_ms":5}}"#;
        assert!(Call::parse(Endpoint::Completions, body, None).is_err());
        let call = Call::parse(Endpoint::Completions, body, Some("reference")).unwrap();
        assert_eq!(call.extension.unwrap()["ttft_ms"], 5);
    }
}
