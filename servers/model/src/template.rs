//! Chat templates: Jinja as Hugging Face's `apply_chat_template` runs it.

use crate::ModelError;
use minijinja::{Environment, Error, ErrorKind, context};
use serde_json::Value;

const NAME: &str = "chat";

/// A compiled chat template.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    pub(crate) fn new(source: String, bos: String, eos: String) -> Result<Self, ModelError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_template_owned(NAME, source).map_err(describe)?;
        Ok(Self {
            environment,
            bos,
            eos,
        })
    }

    pub(crate) fn render(&self, messages: &[Value]) -> Result<String, ModelError> {
        let messages: Vec<Value> = messages.iter().map(flattened).collect();
        let variables = context! {
            messages,
            add_generation_prompt => true,
            bos_token => self.bos,
            eos_token => self.eos,
        };
        let template = self.environment.get_template(NAME).map_err(describe)?;
        template.render(variables).map_err(describe)
    }
}

/// Templates expect text: the text parts of a content array are joined.
fn flattened(message: &Value) -> Value {
    let Some(parts) = message.get("content").and_then(Value::as_array) else {
        return message.clone();
    };
    let text: String = parts
        .iter()
        .filter_map(|part| part.get("text")?.as_str())
        .collect();
    let mut message = message.clone();
    message["content"] = Value::String(text);
    message
}

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

fn strftime_now(format: String) -> Result<String, Error> {
    let mut text = String::new();
    let now = chrono::Local::now().format(&format);
    std::fmt::Write::write_fmt(&mut text, format_args!("{now}")).map_err(|_| {
        Error::new(
            ErrorKind::InvalidOperation,
            format!("strftime_now: unknown format `{format}`"),
        )
    })?;
    Ok(text)
}

fn describe(error: Error) -> ModelError {
    let place = error
        .line()
        .map(|line| format!(" (line {line})"))
        .unwrap_or_default();
    let what = error
        .detail()
        .map_or_else(|| error.kind().to_string(), str::to_owned);
    ModelError::Template(format!("{what}{place}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(source: &str) -> Result<ChatTemplate, ModelError> {
        ChatTemplate::new(source.to_owned(), "<s>".into(), "</s>".into())
    }

    #[test]
    fn python_methods_blocks_and_special_tokens_work() {
        let source = "{{ bos_token }}{% for m in messages %}\n  {%- if m['content'].startswith(' ') %}\n[{{ m['role'].upper() \
                      }}:{{ m.content.strip() }}]\n{% endif %}{% endfor %}{% if add_generation_prompt %}A{{ eos_token }}{% endif %}";
        let text = template(source)
            .unwrap()
            .render(&[json!({"role": "user", "content": " hi "})])
            .unwrap();
        assert_eq!(text, "<s>[USER:hi]\nA</s>");
    }

    #[test]
    fn text_parts_are_joined() {
        let parts = json!({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]});
        let text = template("{{ messages[0].content }}")
            .unwrap()
            .render(&[parts])
            .unwrap();
        assert_eq!(text, "ab");
    }

    #[test]
    fn an_exception_of_the_template_is_the_message() {
        let source = "{% if messages|length == 0 %}{{ raise_exception('no messages') }}{% endif %}";
        let error = template(source).unwrap().render(&[]).unwrap_err();
        assert_eq!(error.to_string(), "chat template: no messages (line 1)");
    }

    #[test]
    fn a_template_that_does_not_compile_names_the_line() {
        let error = template("a\n{% if %}").unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn a_broken_date_format_is_an_error() {
        let template = template("{{ strftime_now(messages[0].content) }}").unwrap();
        let year = template.render(&[json!({"content": "%Y"})]).unwrap();
        assert!(year.parse::<u32>().is_ok_and(|year| year > 2000), "{year}");
        assert!(template.render(&[json!({"content": "%Q"})]).is_err());
    }
}
