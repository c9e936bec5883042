//! What a server says of its own queue: gauges of its Prometheus page.

/// Requests at a server at one instant, by its own word.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Queue {
    /// When it was asked, on the caller's clock.
    pub at_ns: u64,
    /// Requests that it works on.
    pub running: Option<f64>,
    /// Requests that wait.
    pub waiting: Option<f64>,
}

/// What the gauges of a server are called; of the names of each, the first that stands on its page counts.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    /// Requests that it works on.
    pub running: Vec<String>,
    /// Requests that wait.
    pub waiting: Vec<String>,
}

impl Gauges {
    /// What the page says; nothing if neither gauge stands there.
    pub fn read(&self, page: &str, at_ns: u64) -> Option<Queue> {
        let queue = Queue {
            at_ns,
            running: gauge(page, &self.running),
            waiting: gauge(page, &self.waiting),
        };
        (queue.running.is_some() || queue.waiting.is_some()).then_some(queue)
    }
}

/// The first of the names that has values, summed over its labels: models, ranks, engines.
fn gauge(page: &str, names: &[String]) -> Option<f64> {
    names.iter().find_map(|name| {
        let values = page
            .lines()
            .filter_map(sample)
            .filter(|(metric, _)| metric == name);
        values.map(|(_, value)| value).reduce(|sum, value| sum + value)
    })
}

/// A line of Prometheus's text format as name and value, its labels left out; nothing for a comment, or what is no sample.
fn sample(line: &str) -> Option<(&str, f64)> {
    let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, rest) = line.split_at(end);
    let values = match rest.strip_prefix('{') {
        Some(labels) => after_labels(labels)?,
        None => rest,
    };
    // A timestamp may follow. The word after the `#` of a comment is no number.
    Some((name, values.split_whitespace().next()?.parse().ok()?))
}

/// What follows the brace that closes the labels; one inside a quoted value does not.
fn after_labels(labels: &str) -> Option<&str> {
    let (mut quoted, mut escaped) = (false, false);
    let end = labels.find(|c: char| {
        let closes = c == '}' && !quoted;
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    })?;
    Some(&labels[end + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauges() -> Gauges {
        let names = |list: [&str; 2]| list.map(str::to_owned).to_vec();
        Gauges {
            running: names(["loadtest_requests_running", "vllm:num_requests_running"]),
            waiting: names(["loadtest_requests_waiting", "vllm:num_requests_waiting"]),
        }
    }

    #[test]
    fn the_first_name_that_stands_there_counts_over_all_its_labels() {
        let read = |page: &str| gauges().read(page, 7);
        let open_metrics = "# HELP loadtest_requests_running Requests that generate.\n\
            # TYPE loadtest_requests_running gauge\nloadtest_requests_running 3\n\
            # TYPE loadtest_kv_bytes gauge\n# UNIT loadtest_kv_bytes bytes\nloadtest_kv_bytes 4096\n# EOF\n";
        let queue = |running, waiting| {
            Some(Queue {
                at_ns: 7,
                running,
                waiting,
            })
        };
        assert_eq!(read(open_metrics), queue(Some(3.0), None));
        let ranks = "# TYPE vllm:num_requests_running gauge\n\
            vllm:num_requests_running{engine=\"0\",model_name=\"a\"} 3.0\n\
            vllm:num_requests_running{engine=\"1\",model_name=\"a\"} 4.0\n\
            # TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{engine=\"0\",model_name=\"a\"} 2.0\n";
        assert_eq!(read(ranks), queue(Some(7.0), Some(2.0)));
        let hard = "vllm:num_requests_running{model=\"a\\\"} 9 {\"} 5 1700000000000\n";
        assert_eq!(read(hard), queue(Some(5.0), None));
        assert_eq!(read("# TYPE other gauge\nother 1\n"), None);
        assert_eq!(read("<html>not metrics</html>"), None);
    }
}
