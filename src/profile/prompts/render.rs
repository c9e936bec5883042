//! A request's JSON, rendered before the load but for its nonce and its seed.

use serde_json::{Map, Value, json};

use super::{Dialect, Item};
use crate::profile::{Endpoint, Error, Requests};

/// A request's body around its nonce and its seed.
#[derive(Debug, Clone)]
pub struct Rendered {
    pub before_nonce: Vec<u8>,
    pub after_nonce: Vec<u8>,
    /// Whether the seed follows; else the request is whole but for its last brace.
    pub seeded: bool,
}

/// Renders a request in two halves: the nonce goes between them, and the seed after them.
pub fn render(item: &Item, requests: &Requests, dialect: &Dialect) -> Result<Rendered, Error> {
    let (message, at) = item.at;
    let content = item.messages[message]["content"].as_str().unwrap_or_default();
    let (before, after) = content.split_at(at);
    let (input, prefix) = input_around(item, requests.endpoint, before)?;
    let mut fields = dialect.extra.clone();
    fields.insert("model".into(), dialect.model.clone().into());
    fields.insert(dialect.max_tokens.clone(), item.osl.into());
    fields.insert("stream".into(), true.into());
    if dialect.include_usage {
        fields.insert("stream_options".into(), json!({"include_usage": true}));
    }
    sampling(&mut fields, requests, dialect);
    if requests.ignore_eos {
        let field = dialect.ignore_eos.as_ref().ok_or_else(|| {
            Error::Refused("this engine cannot ignore the end token: run it with `--ignore-eos=false`".into())
        })?;
        fields.insert(field.clone(), dialect.ignore_eos_value.clone());
    }
    let options = Value::Object(fields).to_string();
    let mut after_nonce = escaped(after).into_bytes();
    after_nonce.extend_from_slice(input.as_bytes());
    after_nonce.push(b',');
    after_nonce.extend_from_slice(&options.as_bytes()[1..options.len() - 1]);
    if let Some(seed) = &dialect.seed {
        after_nonce.extend_from_slice(format!(",{}:", Value::from(seed.as_str())).as_bytes());
    }
    Ok(Rendered {
        before_nonce: prefix.into_bytes(),
        after_nonce,
        seeded: dialect.seed.is_some(),
    })
}

/// How tokens are drawn, as far as the engine has a field for it. Nothing is drawn at temperature 0.
fn sampling(fields: &mut Map<String, Value>, requests: &Requests, dialect: &Dialect) {
    let drawn = requests.temperature > 0.0;
    let nucleus = drawn && (requests.top_p < 1.0 || dialect.top_p_of_one);
    let told = [
        (&dialect.temperature, Some(Value::from(requests.temperature))),
        (&dialect.top_p, nucleus.then(|| requests.top_p.into())),
        (&dialect.top_k, requests.top_k.filter(|_| drawn).map(Value::from)),
    ];
    for (field, value) in told {
        if let (Some(field), Some(value)) = (field, value) {
            fields.insert(field.clone(), value);
        }
    }
}

/// What stands after the text that takes the nonce, and what stands before it (with `before`, the part of that text
/// which goes ahead of the nonce).
fn input_around(item: &Item, endpoint: Endpoint, before: &str) -> Result<(String, String), Error> {
    let (message, _) = item.at;
    if endpoint == Endpoint::Completions {
        if item.messages.len() > 1 {
            let hint = "the completions endpoint takes one prompt, and this dataset has conversations";
            return Err(Error::Refused(format!("{hint}: use `--endpoint chat`")));
        }
        return Ok(("\"".into(), format!("{{\"prompt\":\"{}", escaped(before))));
    }
    let join = |messages: &[Value]| messages.iter().map(Value::to_string).collect::<Vec<_>>();
    let mut earlier = join(&item.messages[..message]).join(",");
    if !earlier.is_empty() {
        earlier.push(',');
    }
    let later: String = join(&item.messages[message + 1..])
        .iter()
        .map(|message| format!(",{message}"))
        .collect();
    let prefix = format!(
        "{{\"messages\":[{earlier}{{\"role\":\"user\",\"content\":\"{}",
        escaped(before)
    );
    Ok((format!("\"}}{later}]"), prefix))
}

/// A text as it stands between the quotes of a JSON string.
fn escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_string()
}
