//! `loadtest engines check`: one engine, asked a few questions.

use anyhow::anyhow;
use tabled::builder::Builder;
use tabled::settings::Style;

use super::{block_on, tempfile_dir};
use crate::cli::{Check, Secret, TableFormat};
use crate::engine::{self, Access, Findings, Kind, Progress as _, Recipe, Running, Settings};
use crate::report;
use crate::run::{self, Ending, Interrupt, Shown, Usage};

/// Asks the engine, and prints what it answered; it fails where the first answer is a refusal.
pub fn check(asked: &Check, interrupt: &Interrupt, status: &Shown<'_>) -> anyhow::Result<Ending> {
    let name = &asked.name;
    let recipe = run::recipe(name, asked.command.as_deref())?;
    let started = match recipe.kind {
        Kind::Attach => None,
        _ if asked.url.is_some() => {
            let wrong = anyhow!(
                "--url: {name} is started here; for a server that runs already: engines check attach --url"
            );
            return Err(Usage(wrong).into());
        }
        _ => {
            let model = run::model(asked.model.as_deref(), status)?;
            let log = tempfile_dir()?.join(format!("engine-{name}.log"));
            let had = run::have(&recipe, &model, None, status)?;
            let mut settings = Settings::new(&had.model, &model.name, log);
            settings.ready_timeout = asked.load_timeout;
            Some((had.program, settings))
        }
    };
    let headers = asked.header.iter();
    let access = Access {
        api_key: asked.api_key.as_ref().map(Secret::reveal).map(str::to_owned),
        headers: headers
            .map(|header| (header.name.clone(), header.value.clone()))
            .collect(),
    };
    let checked = block_on(interrupt, async {
        let running = match &started {
            Some((program, settings)) => engine::start(&recipe, program, settings, status).await?,
            None => attached(&recipe, asked, &access).await?,
        };
        status.status(&format!("{name}: asking"));
        let findings = engine::check(&recipe, &running, &access).await;
        running.stop().await;
        Ok(findings?)
    })?;
    let Some(findings) = checked else {
        return Ok(Ending::Interrupted);
    };
    report::print(&match asked.format {
        TableFormat::Table => text(&recipe, &findings),
        TableFormat::Json => format!("{}\n", serde_json::to_string_pretty(&findings)?),
    })?;
    Ok(match findings.refused() {
        true => {
            eprintln!(
                "{name} refused the request: HTTP {}: {}",
                findings.status, findings.text
            );
            Ending::Failed
        }
        false => Ending::Done,
    })
}

/// A server that runs already, at the address given or where its engine usually is.
async fn attached(recipe: &Recipe, asked: &Check, access: &Access) -> anyhow::Result<Running> {
    let Some(url) = asked.url.as_deref().or(recipe.url.as_deref()) else {
        return Err(Usage(anyhow!(
            "{} is not started: give its address with --url",
            recipe.name
        ))
        .into());
    };
    Ok(engine::attach(recipe, url, asked.model.clone(), access).await?)
}

/// The stream as it was understood.
fn text(recipe: &Recipe, findings: &Findings) -> String {
    let mut table = Builder::default();
    let mut row = |name: &str, value: String| table.push_record([name.to_owned(), value]);
    row("status", format!("{} {}", findings.status, findings.content_type));
    row(
        "events",
        format!("{} ({} with text)", findings.events, findings.text_events),
    );
    row(
        "role chunk",
        if findings.role_chunk { "yes" } else { "no" }.into(),
    );
    row(
        "tokens per event",
        findings
            .tokens_per_event
            .map_or("unknown".into(), |n| format!("{n:.2}")),
    );
    row("usage", findings.usage.unwrap_or("none").into());
    row(
        "output tokens",
        findings
            .completion_tokens
            .map_or("unknown".into(), |n| n.to_string()),
    );
    row(
        "finish reason",
        findings.finish_reason.clone().unwrap_or("none".into()),
    );
    row("[DONE]", if findings.done { "yes" } else { "no" }.into());
    row("comments", findings.comments.to_string());
    row("other fields", findings.extra_fields.join(", "));
    row("text", format!("{:?}", findings.text));
    for parameter in &findings.parameters {
        row(parameter.name, parameter.verdict.to_string());
    }
    format!(
        "{} ({})\n{}\n",
        recipe.name,
        recipe.description,
        table.build().with(Style::psql())
    )
}
