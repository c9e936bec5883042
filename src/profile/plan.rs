//! The steps of a profile in order, and the plan as a text that a person checks before the run.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;
use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Style};

use super::{Extent, Order, Profile, Shape, Source, Step, UntilStable, Verify, duration};

/// A step in its place in the run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Planned {
    /// Number of the step, from 0; every engine runs the same steps.
    pub index: u16,
    /// Which of its repeats this is, from 0.
    pub repeat: u32,
    /// What to do.
    pub step: Step,
}

impl Profile {
    /// The steps that every engine runs, in order: users, then shapes of requests, then repeats. None if answers alone
    /// are verified.
    pub fn steps(&self) -> Vec<Planned> {
        let mut steps = Vec::new();
        if self.verify == Verify::Only {
            return steps;
        }
        for &users in &self.users {
            for &Shape { isl, osl } in &self.requests.shapes {
                for repeat in 0..self.repeat {
                    steps.push(Planned {
                        index: steps.len() as u16,
                        repeat,
                        step: Step { users, isl, osl },
                    });
                }
            }
        }
        steps
    }

    /// How long the steps take at most, with the rests between them, if that is known; engines that load, calibrations and
    /// verified answers come on top. Absent when only a number of requests ends a step.
    pub fn longest(&self) -> Option<Duration> {
        let step = self.ramp + self.warmup.longest() + self.extent.duration? + self.drain;
        let engines = self.engines.len().max(1);
        let rests = self.turns(engines).len() as u32 - 1;
        Some(step * self.steps().len() as u32 * engines as u32 + self.cool_down * rests)
    }

    /// The plan as `--dry-run` prints it.
    pub fn plan_text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<10}{value}");
        };
        let purpose = self
            .description
            .as_ref()
            .map(|purpose| format!(": {purpose}"))
            .unwrap_or_default();
        line("profile", format!("{}{purpose}", self.name));
        match &self.url {
            Some(url) => line("server", format!("{url} (runs already)")),
            None => line("engines", self.engines.join(", ")),
        }
        line(
            "model",
            self.model
                .clone()
                .unwrap_or_else(|| "what the server serves".into()),
        );
        if self.url.is_none() {
            line("started", self.server_line());
        }
        if let Some(cpus) = &self.client_cpus {
            line("client", format!("processors {cpus}"));
        }
        if let Some(verify) = self.verify_line() {
            line("verify", verify);
        }
        if self.verify == Verify::Only {
            return text;
        }
        line("requests", self.request_line());
        line("window", self.window_line());
        if let Some(slo) = &self.slo {
            line("goodput", format!("requests within {slo} (ms)"));
        }
        if self.calibrate {
            line(
                "calibrate",
                "the client's own error, some seconds before and after".into(),
            );
        }
        if let Some(order) = self.order_line() {
            line("order", order);
        }
        line("time", self.time_line());
        let results = self.report.folder().join(format!("<utc time>-{}", self.name));
        line("results", results.display().to_string());
        format!("{text}\n{}\n", self.step_table())
    }

    fn server_line(&self) -> String {
        let server = &self.server;
        let threads = server
            .threads
            .map_or("default threads".into(), |n| format!("{n} threads"));
        let mut line = format!(
            "{threads}, {} sequence{} of {} tokens",
            server.parallel,
            if server.parallel == 1 { "" } else { "s" },
            server.context
        );
        if let Some(cpus) = &server.server_cpus {
            let _ = write!(line, ", processors {cpus}");
        }
        if let Some(weights) = &server.weights {
            let _ = write!(line, ", weights {weights}");
        }
        if let Some(device) = &server.device {
            let _ = write!(line, ", on {device}");
        }
        if !server.args.is_empty() {
            let _ = write!(line, ", {}", server.args.join(" "));
        }
        if let Some(command) = &server.command {
            let _ = write!(line, ", by `{command}`");
        }
        line
    }

    fn request_line(&self) -> String {
        let requests = &self.requests;
        let mut parts = vec![match &requests.source {
            Source::Synthetic => "synthetic prompts, each of them unique".to_string(),
            Source::Questions => "the fixed set `questions`".to_string(),
            Source::File(path) => path.display().to_string(),
        }];
        if requests.shared_prefix > 0 {
            parts.push(format!("the first {} tokens shared", requests.shared_prefix));
        }
        if requests.ignore_eos {
            parts.push("ignoring the end token".into());
        }
        if requests.temperature > 0.0 {
            parts.push(format!("temperature {}", requests.temperature));
            parts.push(format!("top-p {}", requests.top_p));
            parts.extend(requests.top_k.map(|k| format!("top-k {k}")));
        } else {
            parts.push("greedy".into());
        }
        parts.push(format!("seed {}", requests.seed));
        parts.push(requests.endpoint.path().into());
        parts.join(", ")
    }

    fn verify_line(&self) -> Option<String> {
        let against = match (&self.verify_against, self.engines.len()) {
            (Some(name), _) => format!(", held against those of {name}"),
            (None, 0 | 1) => String::new(),
            (None, _) => ", held against those of the first that answers".into(),
        };
        let load = match self.verify {
            Verify::Off => return None,
            Verify::On => "; some again under load",
            Verify::Only => "; no load",
        };
        Some(format!("greedy answers to a fixed set of prompts{against}{load}"))
    }

    fn window_line(&self) -> String {
        let mut parts = Vec::new();
        if !self.ramp.is_zero() {
            parts.push(format!("ramp {}", duration::show(self.ramp)));
        }
        let warmup = &self.warmup;
        let mut bounds = Vec::new();
        if !warmup.duration.is_zero() {
            bounds.push(duration::show(warmup.duration));
        }
        if warmup.requests_per_user > 0 {
            bounds.push(format!("{} per user", count(u64::from(warmup.requests_per_user))));
        }
        if !bounds.is_empty() {
            let most = match warmup.requests_per_user > 0 && warmup.most > warmup.duration {
                true => format!(", at most {}", duration::show(warmup.most)),
                false => String::new(),
            };
            parts.push(format!("warm-up {}{most}", bounds.join(" and ")));
        }
        parts.push(format!("measured {}", extent(&self.extent)));
        parts.push(format!("drain up to {}", duration::show(self.drain)));
        parts.push(format!(
            "a pause of {} after a failed request",
            duration::show(self.backoff)
        ));
        parts.join(", ")
    }

    /// How engines take turns, where there is more than one turn.
    fn order_line(&self) -> Option<String> {
        let engines = self.engines.len().max(1);
        if self.turns(engines).len() < 2 {
            return None;
        }
        let order = match self.order {
            Order::Sequential => "one engine after another",
            Order::Shuffled => "engines shuffled",
            Order::Interleaved => "engines interleaved",
        };
        let mut parts: Vec<String> = (engines > 1).then(|| order.into()).into_iter().collect();
        if let Some(UntilStable { until, least }) = &self.stable {
            parts.push(format!(
                "{least} to {} repeats, until {} is known within {}%",
                self.repeat,
                until.metric,
                (until.within * 1e6).round() / 1e4
            ));
        }
        if self.repeat > 1 {
            parts.push(match self.restart {
                true => "started anew for each repeat".into(),
                false => "running on between repeats".into(),
            });
        }
        if !self.cool_down.is_zero() {
            parts.push(format!("{} of rest between", duration::show(self.cool_down)));
        }
        Some(parts.join(", "))
    }

    fn time_line(&self) -> String {
        let steps = self.steps().len();
        let steps = format!("{steps} step{}", if steps == 1 { "" } else { "s" });
        let engines = match self.engines.len() {
            0 | 1 => String::new(),
            n => format!(" on each of {n} engines"),
        };
        match self.longest() {
            Some(time) => format!(
                "{steps}{engines}, {} at most{}",
                duration::show(time),
                self.on_top()
            ),
            None => format!("{steps}{engines}, as long as the requests take"),
        }
    }

    /// What takes time beside the steps.
    fn on_top(&self) -> String {
        let parts = [
            (self.url.is_none(), "loading"),
            (self.calibrate, "calibrating"),
            (self.verify != Verify::Off, "verifying"),
        ];
        let parts: Vec<&str> = parts
            .into_iter()
            .filter_map(|(done, name)| done.then_some(name))
            .collect();
        match parts.as_slice() {
            [] => String::new(),
            parts => format!(", besides {}", parts.join(" and ")),
        }
    }

    fn step_table(&self) -> String {
        let mut table = Builder::default();
        table.push_record(["step", "users", "ISL", "OSL", "repeat", "ends after"]);
        for planned in self.steps() {
            let isl = match planned.step.isl.mean {
                0 => "dataset".into(),
                _ => planned.step.isl.to_string(),
            };
            table.push_record([
                (planned.index + 1).to_string(),
                planned.step.users.to_string(),
                isl,
                planned.step.osl.to_string(),
                format!("{}/{}", planned.repeat + 1, self.repeat),
                extent(&self.extent),
            ]);
        }
        table
            .build()
            .with(Style::sharp())
            .modify(Columns::new(..5), Alignment::right())
            .to_string()
    }
}

fn extent(extent: &Extent) -> String {
    let duration = extent.duration.map(duration::show);
    let requests = extent.requests.map(count);
    duration
        .into_iter()
        .chain(requests)
        .collect::<Vec<_>>()
        .join(" or ")
}

fn count(requests: u64) -> String {
    format!("{requests} request{}", if requests == 1 { "" } else { "s" })
}
