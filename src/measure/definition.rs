//! What each figure means: one table, for `loadtest explain`, for reports and for exports.

/// The definition of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// The name by which results refer to it.
    pub id: &'static str,
    /// What it is called.
    pub name: &'static str,
    /// Its unit; empty for a pure number.
    pub unit: &'static str,
    /// What it is, exactly.
    pub meaning: &'static str,
    /// How other tools read the same name; empty where the field agrees.
    pub elsewhere: &'static str,
}

/// There is no metric of this name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("there is no metric `{name}`{hint}; there are {known}")]
pub struct UnknownMetric {
    name: String,
    hint: String,
    known: String,
}

/// The definition of a metric, by its id or by its name.
///
/// # Errors
/// If there is none; the message has the nearest one.
pub fn explain(metric: &str) -> Result<&'static Definition, UnknownMetric> {
    let wanted = metric.to_lowercase().replace([' ', '-'], "_");
    let id = wanted.trim_end_matches("_ms");
    let by_id = DEFINITIONS
        .iter()
        .find(|definition| definition.id == id || definition.id == wanted);
    let by_name = || {
        DEFINITIONS
            .iter()
            .find(|definition| definition.name.to_lowercase().replace([' ', '-'], "_") == wanted)
    };
    by_id.or_else(by_name).ok_or_else(|| {
        let ids = DEFINITIONS.iter().map(|definition| definition.id);
        UnknownMetric {
            name: metric.into(),
            hint: nearest(id, ids.clone()),
            known: ids.collect::<Vec<_>>().join(", "),
        }
    })
}

fn nearest(wrong: &str, ids: impl Iterator<Item = &'static str>) -> String {
    ids.map(|id| (strsim::jaro_winkler(wrong, id), id))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, id)| format!(" (did you mean `{id}`?)"))
        .unwrap_or_default()
}

const fn define(
    id: &'static str,
    name: &'static str,
    unit: &'static str,
    meaning: &'static str,
    elsewhere: &'static str,
) -> Definition {
    Definition {
        id,
        name,
        unit,
        meaning,
        elsewhere,
    }
}

/// Every metric, in the order in which reports show them.
pub const DEFINITIONS: &[Definition] = &[
    define(
        "ttft",
        "time to first token",
        "ms",
        "From handing the request's first byte to the kernel, on an open connection, to the arrival at this host of \
         the first event that carries generated output. Arrival is the kernel's receive timestamp where there is one. \
         A first token of reasoning counts; a chunk with only a role, an empty delta or a comment does not.",
        "Some tools start the clock before connecting, or stop it at the response's head or at any first chunk.",
    ),
    define(
        "ttft_from_due",
        "time to first token from due",
        "ms",
        "From the instant at which the load wanted the request to the arrival of its first output: what a user of an \
         overloaded system waits. With closed-loop users, due is when the user became free.",
        "Often not measured at all, which hides the waiting before a late request (coordinated omission).",
    ),
    define(
        "ttfo",
        "time to first output",
        "ms",
        "Like TTFT, but to the first visible content: reasoning does not count.",
        "",
    ),
    define(
        "ttst",
        "time to second token",
        "ms",
        "From the first event with output to the second one.",
        "",
    ),
    define(
        "tpot",
        "time per output token",
        "ms",
        "Of one request: the time between its first and its last output event, divided by the output tokens that came \
         after the first event. Undefined where none came after it. One value per request.",
        "Tools that divide by all output tokens, or start at sending, report other figures under this name.",
    ),
    define(
        "itl",
        "inter-token latency",
        "ms",
        "The gap between neighbouring output events, divided by the tokens that the later event carries, and counted \
         once for each of those tokens.",
        "Several tools give the raw gap between chunks this name; here that is ICL.",
    ),
    define(
        "icl",
        "inter-chunk latency",
        "ms",
        "The raw gap between neighbouring output events, however many tokens they carry.",
        "Often called ITL.",
    ),
    define(
        "e2el",
        "end-to-end latency",
        "ms",
        "From sending the request to the arrival of its last event with output.",
        "Some tools go on to the end of the stream, with usage and [DONE].",
    ),
    define(
        "connect",
        "connect time",
        "ms",
        "Name resolution, TCP and TLS, of requests that opened a connection. It is part of no other latency.",
        "",
    ),
    define(
        "output_tps",
        "output throughput",
        "tok/s",
        "Output tokens whose event arrived inside the measurement window, divided by the window's length.",
        "Counting all tokens of the requests that ended inside the window is common, and is off at both edges.",
    ),
    define(
        "request_rps",
        "request throughput",
        "req/s",
        "Requests whose last output arrived inside the measurement window, divided by the window's length.",
        "",
    ),
    define(
        "goodput_rps",
        "goodput",
        "req/s",
        "Requests sent inside the window that met every objective given (TTFT, TPOT, E2EL), per second. A failed \
         request meets none.",
        "",
    ),
    define(
        "output_tokens",
        "output tokens",
        "tokens",
        "Per request: the server's own count (usage.completion_tokens); else that of the model's tokenizer, or of the one \
         named with --tokenizer, over the answer's text once the request is over; else, where no tokenizer is known or the \
         answer is longer than 1 MiB, the number of events with output. The result says which.",
        "Tokenizing the output again can differ from what the server generated: tokens without text (an end token) are \
         not in it, and text may be cut into other tokens.",
    ),
    define(
        "input_tokens",
        "input tokens",
        "tokens",
        "Per request: the server's own count (usage.prompt_tokens), else unknown. It includes what the server's chat \
         template adds.",
        "",
    ),
    define(
        "speed_per_user",
        "output speed per user",
        "tok/s",
        "1000 divided by TPOT: how fast one user sees text appear.",
        "",
    ),
    define(
        "concurrency_claimed",
        "claimed concurrency",
        "",
        "The users of the step.",
        "",
    ),
    define(
        "concurrency_observed",
        "observed concurrency",
        "",
        "Requests in flight, averaged over the time of the window. Where it is more than 5 % below the users, failures or \
         the client held some back. In a steady step it equals throughput times latency (Little's law); a difference \
         above 5 % is told.",
        "Usually not reported; the number of users is taken for it.",
    ),
    define(
        "concurrency_streaming",
        "streaming concurrency",
        "",
        "Streams between their first and last token, averaged over the time of the window, and the number not exceeded \
         during 95 % of it: how many requests the server really worked on at once. A server with one slot shows 1 here, however many users wait; \
         a step in which requests waited for a slot is marked queued.",
        "",
    ),
    define(
        "concurrency_server",
        "concurrency by the server's word",
        "",
        "Requests that the server says it works on and that wait, where its Prometheus page tells: asked once a second, \
         averaged over the window. Their sum is held against the requests in flight.",
        "",
    ),
    define(
        "scaling",
        "scaling factor",
        "",
        "Output throughput of a step divided by that of the engine's step with the fewest users.",
        "",
    ),
    define(
        "efficiency",
        "scaling efficiency",
        "",
        "The scaling factor divided by the ratio of users: 1 means that every user more added as much as the first.",
        "",
    ),
    define(
        "agreement",
        "agreement of answers",
        "",
        "With --verify every engine answers 20 fixed prompts with up to 32 tokens at temperature 0, one at a time. Two answers \
         agree as far as their tokens are the same: the common prefix is the number of tokens before the first difference \
         (the whole answer where there is none), similarity is the normalised Levenshtein similarity of the texts in \
         characters. What follows the first difference follows from it, and is not judged.",
        "",
    ),
    define(
        "near_tie",
        "near tie",
        "nats",
        "A first difference at which every engine that tells log probabilities holds its own token likelier than the \
         other's by no more than 1 (under load, against the same engine alone: 0.25), as a difference of natural logarithms. \
         Engines that round activations to eight bits move them by 0.1 on average and 1 at worst, so that rounding may decide \
         there. A wider difference is apart: another model, template or computation.",
        "",
    ),
    define(
        "linear_up_to",
        "linear up to",
        "users",
        "The most users up to which every step had at least 90 % of the throughput per user of the step with the fewest.",
        "",
    ),
    define(
        "knee",
        "knee",
        "users",
        "The step with the most power, throughput over response time (Kleinrock, Power and deterministic rules of thumb, \
         1979; Jain, The Art of Computer Systems Performance Analysis, 1991, 3.3). Users who wait for nothing but answers \
         make throughput times response time their number, so that power is throughput squared over users. More users than \
         that cost more waiting than they bring throughput.",
        "Others take the step after which throughput stops to grow, or look at the picture.",
    ),
    define(
        "usl",
        "universal scalability law",
        "",
        "X(n) = lambda n / (1 + sigma (n - 1) + kappa n (n - 1)) for output throughput X of n users (Gunther, Guerrilla \
         Capacity Planning, 2007, chapter 4). lambda: throughput of one user alone. sigma, contention: the share of the work \
         for which users wait on each other. kappa, coherency: what each pair of users costs. Throughput is highest at \
         sqrt((1 - sigma) / kappa) users. Fitted by least squares on logarithms, from 4 numbers of users on; no parameter is \
         below 0. Intervals are of the linearised fit, with Student's t.",
        "",
    ),
    define(
        "ci95",
        "95 % interval",
        "",
        "Where the true figure lies, 95 times in 100. Requests of one run are not independent, so neighbours stay together: \
         a circular block bootstrap (Politis and Romano, 1992) over requests in the order of sending, and over seconds for \
         rates, ITL and ICL. Blocks are three times as long as Politis and White's rule says (2004, corrected 2009): long \
         blocks take in more of the correlation. There are 10 to 50 of them, and the interval is widened by Student's t for \
         their number. A percentile's interval are the values at the ends of the interval of the share below it (Woodruff, \
         1952). Fewer than 10 requests or seconds have none. On data of known distribution, independent and correlated, 93 \
         to 97 % of these intervals hold the truth, which is tested. What differs from one run to the next is not in them: \
         that is what repeats are for.",
        "Most tools give none, or take requests as independent, which makes intervals too narrow.",
    ),
    define(
        "repeats",
        "repeats",
        "",
        "Over the repeats of a step (--repeat): median, smallest, largest, standard deviation, coefficient of variation and \
         the 95 % interval of the mean by Student's t. A coefficient of variation above 5 % of output throughput, median TTFT \
         or median ITL is told, and so are fewer than 100 requests in a repeat. --until-stable output_tps:2% repeats until \
         half the width of that interval is at most 2 % of the mean, at least 3 times and at most --max-repeats.",
        "",
    ),
    define(
        "real_difference",
        "real difference",
        "",
        "What loadtest compare calls more than chance: p below 5 % after Holm's correction (1979) for all comparisons made. \
         With 3 repeats of each side or more, p is that of Welch's t test (1947) on the repeats' logarithms, and Hedges' g \
         (1981) is the effect size. With fewer, p comes from the two runs' own 95 % intervals, the distances to whose limits \
         are combined (method of variance estimates recovery, Zou and Donner 2008) on the scale of logarithms: it tells \
         these two runs apart, not what they were made of. Of a thousand pairs of runs that do not differ, at most 60 are \
         called different before correction, which is tested.",
        "",
    ),
    define(
        "errors",
        "errors",
        "%",
        "The share of the requests sent inside the window that failed. Its interval is Wilson's (1927), with as many requests \
         as the block bootstrap's spread is worth.",
        "",
    ),
    define(
        "read_lag",
        "read lag",
        "ms",
        "The client's own delay: from the kernel's receipt of an event to the program's reading it. Latencies rest on \
         the former, so that read lag is no part of them where the kernel stamps; above 1 ms at p99 it is told. Where the \
         kernel does not stamp (macOS), arrivals are the instants of reading, and read lag cannot be measured.",
        "Tools that stamp in user space have it inside their latencies.",
    ),
    define(
        "send_lag",
        "send lag",
        "ms",
        "The client's own delay: from the instant a request was due to the instant it was sent, less the set-up of a \
         connection in between. It is no part of TTFT, but of TTFT from due, and a user who is late to ask is no load \
         meanwhile. A user without think time is due when it hears that its answer has ended, which where events come \
         often is some 0.5 ms after the last of them arrived; requests.jsonl has both instants.",
        "",
    ),
    define(
        "sending",
        "sending",
        "ms",
        "From the instant that stands as sent, read before the request is written, to its first write. TTFT and E2EL are \
         too long by as much.",
        "",
    ),
    define(
        "client_error",
        "client error",
        "ms",
        "How far the client's own lateness may have moved what it reports, at p99; the sum of four parts. Clock: the \
         uncertainty in bringing the kernel's stamps onto the run's clock, at worst. Shared stamps: an event that was read \
         so late that the kernel had merged it with a later one has the later one's stamp; it came earlier by no more than \
         the time since the stamp before, and by no more than events lay unread. Sending, and send lag. Read lag is no part \
         of it: a late reader still finds the kernel's stamps. Above 1 ms, or above 5 % of the median TTFT, a step is \
         marked client-limited. Without kernel stamps it is not known.",
        "Rarely reported at all.",
    ),
    define(
        "run_queue",
        "run-queue delay",
        "s",
        "Time in which the client's threads were ready to run and had no processor, summed over them (Linux, schedstat). \
         Above 5 % of the window of each, or when the hypervisor took more than 2 % of the processors, a step is marked \
         contended.",
        "",
    ),
    define(
        "server_cpu",
        "server CPU",
        "cores",
        "Processors that the server's whole process tree kept busy, on average over the window (Linux, a server that was \
         started here). CPU ms/tok is its CPU time over the output tokens that arrived in the window.",
        "",
    ),
    define(
        "rss_peak",
        "peak RSS",
        "bytes",
        "The largest resident set of the server's process tree, looked at once a second over the step. Pages that \
         processes share count in each, and a model's file that is mapped into memory counts as far as it was read.",
        "",
    ),
    define(
        "disk_faults",
        "disk faults",
        "",
        "Page faults of the server's processes that needed the disk (major faults) inside the window: above a few, it \
         has not got all of its model in memory.",
        "",
    ),
    define(
        "load_time",
        "load time",
        "s",
        "From the start of the server's process until its model answered a request for one token, asked ten times a second. \
         Its parts: ready, when its own page says that it is up, and from there to the first token.",
        "Some engines print the time of reading the weights alone.",
    ),
    define(
        "gpu_utilisation",
        "GPU utilisation",
        "%",
        "Share of the time in which a kernel ran on the card, by its driver's library (NVML); the mean over the window, \
         and over the cards that the server computed on. It says nothing of how much of the card a kernel used.",
        "",
    ),
    define(
        "gpu_energy",
        "GPU energy",
        "J",
        "Energy of the cards that the server computed on, inside the window: by each card's own counter, else mean power \
         times the window's length. J/tok is over the output tokens that arrived in the window.",
        "",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_metric_is_found_by_id_and_by_name() {
        for definition in DEFINITIONS {
            assert_eq!(explain(definition.id), Ok(definition));
            assert_eq!(explain(&definition.name.to_uppercase()), Ok(definition));
        }
        assert_eq!(explain("TTFT").map(|definition| definition.id), Ok("ttft"));
        assert_eq!(explain("ttft_ms").map(|definition| definition.id), Ok("ttft"));
    }

    #[test]
    fn ids_are_unique() {
        let ids: BTreeSet<_> = DEFINITIONS.iter().map(|definition| definition.id).collect();
        assert_eq!(ids.len(), DEFINITIONS.len());
    }

    #[test]
    fn an_unknown_metric_names_the_nearest() {
        insta::assert_snapshot!(explain("tftt").unwrap_err());
    }
}
