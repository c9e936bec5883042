//! Asking a server, off the hot path: is it up, does its model answer, which settings has it.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::access::Access;
use super::error::reason;
use super::recipe::{Probe, ReadBack, Ready, Recipe, fill};
use super::settings::{Effective, Sampling};

/// How long a server may take for a page that needs no model.
const PAGE_PATIENCE: Duration = Duration::from_secs(5);

/// How long one token may take, on a slow machine with a large model.
const TOKEN_PATIENCE: Duration = Duration::from_secs(120);

/// Whether the server is up.
pub(super) enum Page {
    /// Its page says so, or it has none.
    Up,
    /// Not yet; why.
    NotYet(String),
}

/// What a readiness probe came to.
pub(super) enum Answer {
    /// The model of this name answered with a token.
    Ready(String),
    /// Not yet; why.
    NotYet(String),
    /// The server is up and refuses: status and the start of its body.
    Refused(u16, String),
}

/// A server's address, and how to talk to it.
#[derive(Clone)]
pub(super) struct Control {
    client: reqwest::Client,
    base: String,
    access: Access,
}

impl Control {
    /// For the server at `base`, without a trailing slash.
    pub fn new(base: &str, access: Access) -> reqwest::Result<Control> {
        // A proxy of the environment must not stand between us and a server on this machine.
        let client = reqwest::Client::builder()
            .no_proxy()
            // A server may close an idle connection while a request is on its way; a fresh one asks in any case.
            .pool_max_idle_per_host(0)
            .connect_timeout(PAGE_PATIENCE)
            .build()?;
        Ok(Control {
            client,
            base: base.into(),
            access,
        })
    }

    fn authorised(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        let headers = self.access.headers.iter();
        let request = headers.fold(request, |request, (name, value)| request.header(name, value));
        match &self.access.api_key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// A page of the server.
    pub async fn get(&self, path: &str) -> reqwest::Result<reqwest::Response> {
        let url = format!("{}{path}", self.base);
        self.authorised(self.client.get(url))
            .timeout(PAGE_PATIENCE)
            .send()
            .await
    }

    /// Posts a request for tokens.
    pub async fn post(&self, path: &str, body: &Value) -> reqwest::Result<reqwest::Response> {
        self.post_within(path, body, TOKEN_PATIENCE).await
    }

    /// Posts a request whose whole answer must come within `patience`.
    pub async fn post_within(
        &self,
        path: &str,
        body: &Value,
        patience: Duration,
    ) -> reqwest::Result<reqwest::Response> {
        let url = format!("{}{path}", self.base);
        self.authorised(self.client.post(url))
            .timeout(patience)
            .json(body)
            .send()
            .await
    }

    /// Whether the server's own page says that it is up.
    pub async fn up(&self, ready: &Ready) -> Page {
        for path in [&ready.path, &ready.else_path].into_iter().flatten() {
            match self.get(path).await {
                Ok(response) if response.status().is_success() => return Page::Up,
                Ok(response) if response.status() == StatusCode::NOT_FOUND && ready.else_path.is_some() => {}
                Ok(response) => return Page::NotYet(format!("{path} says {}", response.status())),
                Err(error) => return Page::NotYet(reason(&error)),
            }
        }
        Page::Up
    }

    /// What the server calls the model that it was started with as `wanted`.
    async fn name(&self, wanted: &str) -> String {
        let listed = self.models().await.unwrap_or_default();
        match listed.iter().any(|name| name == wanted) {
            true => wanted.to_owned(),
            false => listed.into_iter().next().unwrap_or_else(|| wanted.to_owned()),
        }
    }

    /// Whether the model answers by now.
    pub async fn answers(&self, recipe: &Recipe, model_name: &str, sampling: Sampling) -> Answer {
        let name = match recipe.dialect.listed_name {
            true => self.name(model_name).await,
            false => model_name.to_owned(),
        };
        let endpoints: &[Endpoint] = match recipe.ready.probe {
            Probe::Completions => &[Endpoint::Completions],
            Probe::Chat => &[Endpoint::Chat],
            Probe::Either => &[Endpoint::Completions, Endpoint::Chat],
        };
        let mut answer = Answer::NotYet(String::new());
        for endpoint in endpoints {
            answer = self.token(recipe, &name, *endpoint, sampling).await;
            if !matches!(answer, Answer::Refused(..)) {
                break;
            }
        }
        match answer {
            // Without a page that tells readiness, a refusal too may mean that it is early.
            Answer::Refused(status, body) if recipe.ready.path.is_none() => {
                Answer::NotYet(format!("it says {status}: {body}"))
            }
            other => other,
        }
    }

    /// Asks one endpoint for one token.
    async fn token(&self, recipe: &Recipe, name: &str, endpoint: Endpoint, sampling: Sampling) -> Answer {
        let (path, mut body) = one_token(recipe, name, endpoint);
        if recipe.ready.sampling {
            let dialect = &recipe.dialect;
            let fields = [
                (&dialect.temperature, sampling.temperature),
                (&dialect.top_p, sampling.top_p.filter(|p| dialect.takes_top_p(*p))),
            ];
            for (field, value) in fields {
                if let (Some(field), Some(value)) = (field, value) {
                    body[field] = json!(value);
                }
            }
        }
        let response = match self.post(path, &body).await {
            Ok(response) => response,
            Err(error) => return Answer::NotYet(reason(&error)),
        };
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        let tokens =
            serde_json::from_str::<Value>(&text).is_ok_and(|answer| answer.pointer("/choices/0").is_some());
        let short: String = text.chars().take(300).collect();
        match status.as_u16() {
            200..300 if tokens => Answer::Ready(name.to_owned()),
            // Busy, too early, or too many: worth another try.
            408 | 425 | 429 | 500.. => Answer::NotYet(format!("{path} says {status}: {short}")),
            code => Answer::Refused(code, short),
        }
    }

    /// The names of the models that the server lists.
    pub async fn models(&self) -> reqwest::Result<Vec<String>> {
        let listed: Value = self.get("/v1/models").await?.error_for_status()?.json().await?;
        let data = listed
            .get("data")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        Ok(data
            .iter()
            .filter_map(|model| Some(model.get("id")?.as_str()?.to_owned()))
            .collect())
    }

    /// The settings that the server tells; what it does not tell is left out.
    pub async fn effective(&self, how: &ReadBack) -> Effective {
        let Ok(response) = self.get(&how.path).await else {
            return Effective::default();
        };
        let Ok(page) = response.json::<Value>().await else {
            return Effective::default();
        };
        read(&page, how)
    }
}

/// Reads the settings out of the server's page.
fn read(page: &Value, how: &ReadBack) -> Effective {
    let at = |pointer: &Option<String>| page.pointer(pointer.as_deref()?);
    let number = |pointer: &Option<String>| at(pointer)?.as_u64();
    let text = |pointer: &Option<String>| at(pointer)?.as_str().map(Into::into);
    let small = |pointer: &Option<String>| number(pointer).and_then(|n| u32::try_from(n).ok());
    Effective {
        parallel: small(&how.parallel),
        context: small(&how.context),
        threads: small(&how.threads),
        batch: small(&how.batch),
        device: text(&how.device),
        version: text(&how.version),
        weights: text(&how.weights),
        weights_bytes: number(&how.weights_bytes),
    }
}

/// Where a token can be asked for.
#[derive(Debug, Clone, Copy)]
enum Endpoint {
    Completions,
    Chat,
}

/// A request for a single token.
fn one_token(recipe: &Recipe, model_name: &str, endpoint: Endpoint) -> (&'static str, Value) {
    let model = fill(&recipe.dialect.model, &[("model_name", model_name.to_owned())]);
    let mut body = json!({ "model": model });
    body[&recipe.dialect.max_tokens] = json!(1);
    match endpoint {
        Endpoint::Completions => {
            body["prompt"] = json!("Hello");
            ("/v1/completions", body)
        }
        Endpoint::Chat => {
            body["messages"] = json!([{ "role": "user", "content": "Hello" }]);
            ("/v1/chat/completions", body)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_where_the_recipe_says() {
        let how: ReadBack = toml::from_str(
            "path = '/props'\nparallel = '/total_slots'\ncontext = '/default_generation_settings/n_ctx'\nthreads = '/none'\n\
             batch = '/chunk'\ndevice = '/device'",
        )
        .unwrap();
        let page = json!({
            "total_slots": 4, "default_generation_settings": { "n_ctx": 1024 }, "chunk": 256, "device": "cuda:0",
        });
        let told = read(&page, &how);
        assert_eq!(
            told,
            Effective {
                parallel: Some(4),
                context: Some(1024),
                batch: Some(256),
                device: Some("cuda:0".into()),
                ..Effective::default()
            }
        );
    }
}
