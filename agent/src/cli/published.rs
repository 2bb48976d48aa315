//! Ports that the packet filter leads elsewhere, as containers are published: what comes from outside is given another
//! destination before anybody looks for a listener, so that a server that is attached never sees it.
//!
//! Best effort: the tools of the packet filter are asked, which know every kind of rule; where they are absent or slow,
//! nothing is said. The command line does it and not the agent, which waits for nobody.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{io::AsyncReadExt as _, process::Command, time::timeout};

/// What the packet filter does to a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Redirection {
    port: u16,
    /// Where it leads, as far as the rule says it.
    target: String,
}

/// That some of these ports are led elsewhere, in words.
pub(super) async fn warnings(ports: &[u16]) -> Vec<String> {
    let mut found = BTreeSet::new();
    if let Some(text) = output("nft", &["-j", "list", "ruleset"]).await {
        found.extend(in_nftables(&text, ports));
    }
    // Rules of the older tool that the newer one cannot show.
    for tool in ["iptables-save", "iptables-legacy-save", "ip6tables-save", "ip6tables-legacy-save"]
    {
        if let Some(text) = output(tool, &["-t", "nat"]).await {
            found.extend(in_iptables(&text, ports));
        }
    }
    found.iter().map(Redirection::warning).collect()
}

impl Redirection {
    fn warning(&self) -> String {
        let Self { port, target } = self;
        format!(
            "port {port} is redirected by the packet filter (nat) to {target} for connections from outside: they never reach this \
             server; attach the one that listens there"
        )
    }
}

/// What a tool of the machine says; nothing if it is absent, fails, or takes its time.
async fn output(tool: &str, arguments: &[&str]) -> Option<String> {
    const PATIENCE: Duration = Duration::from_secs(2);
    const LONGEST: u64 = 16 << 20;
    let path = ["/usr/sbin", "/sbin", "/usr/bin"].iter().map(|place| format!("{place}/{tool}"));
    let path = path.into_iter().find(|path| std::path::Path::new(path).exists())?;
    let mut child = Command::new(path)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    let mut said = child.stdout.take()?.take(LONGEST);
    let mut text = String::new();
    let ended = timeout(PATIENCE, async {
        said.read_to_string(&mut text).await?;
        child.wait().await
    });
    ended.await.ok()?.ok().filter(|status| status.success()).map(|_| text)
}

/// What `nft -j list ruleset` shows.
fn in_nftables(text: &str, ports: &[u16]) -> Vec<Redirection> {
    let Ok(ruleset) = serde_json::from_str::<Value>(text) else { return Vec::new() };
    let objects = || ruleset["nftables"].as_array().into_iter().flatten();
    // Who is here already is led elsewhere by these; nobody from outside is.
    let from_here: BTreeSet<_> = objects()
        .filter_map(|it| it.get("chain"))
        .filter(|chain| matches!(chain["hook"].as_str(), Some("output" | "postrouting")))
        .map(|chain| [&chain["family"], &chain["table"], &chain["name"]].map(Value::to_string))
        .collect();
    let rules = objects().filter_map(|it| it.get("rule")).filter(|rule| {
        let chain = [&rule["family"], &rule["table"], &rule["chain"]].map(Value::to_string);
        !from_here.contains(&chain)
    });
    rules.flat_map(|rule| in_rule(&rule["expr"], ports)).collect()
}

fn in_rule(expressions: &Value, ports: &[u16]) -> Vec<Redirection> {
    let expressions = || expressions.as_array().into_iter().flatten();
    let Some(target) = expressions().find_map(target_of) else { return Vec::new() };
    let Some(matched) = expressions().find_map(matched_ports) else { return Vec::new() };
    let of = |port: &&u16| contains(matched, **port) && target != format!("port {port}");
    ports
        .iter()
        .filter(of)
        .map(|port| Redirection { port: *port, target: target.clone() })
        .collect()
}

/// `{"dnat": {"addr": "10.0.0.2", "port": 80}}` or `{"redirect": {"port": 8081}}`.
fn target_of(expression: &Value) -> Option<String> {
    let target = expression.get("dnat").or_else(|| expression.get("redirect"))?;
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    Some(match (text(&target["addr"]), text(&target["port"])) {
        (Some(address), Some(port)) if address.contains(':') => format!("[{address}]:{port}"),
        (Some(address), Some(port)) => format!("{address}:{port}"),
        (Some(address), None) => address,
        (None, Some(port)) => format!("port {port}"),
        (None, None) => "another place".to_owned(),
    })
}

/// The right side of `tcp dport …`.
fn matched_ports(expression: &Value) -> Option<&Value> {
    let found = expression.get("match").filter(|it| it["op"] == "==" || it["op"] == "in")?;
    let payload = &found["left"]["payload"];
    let of_tcp = matches!(payload["protocol"].as_str(), Some("tcp" | "th"));
    (of_tcp && payload["field"] == "dport").then_some(&found["right"])
}

/// Whether `8080`, `{"range": [8000, 8999]}` or `{"set": […]}` of such contains a port.
fn contains(ports: &Value, port: u16) -> bool {
    if let Some(set) = ports.get("set").and_then(Value::as_array) {
        return set.iter().any(|part| contains(part, port));
    }
    if let Some([first, last]) = ports.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        let port = u64::from(port);
        return first.as_u64().is_some_and(|it| it <= port)
            && last.as_u64().is_some_and(|it| port <= it);
    }
    ports.as_u64() == Some(port.into())
}

/// What `iptables-save -t nat` shows, a rule each line: `-A DOCKER -p tcp -m tcp --dport 8080 -j DNAT --to-destination …`.
fn in_iptables(text: &str, ports: &[u16]) -> Vec<Redirection> {
    let rules = text.lines().filter_map(|line| line.strip_prefix("-A "));
    rules.flat_map(|rule| in_line(rule, ports)).collect()
}

fn in_line(rule: &str, ports: &[u16]) -> Vec<Redirection> {
    let words: Vec<_> = rule.split_ascii_whitespace().collect();
    let after = |option: &str| {
        let place = words.iter().position(|word| *word == option)?;
        // What is excepted is told by a word before it.
        let excepted = place > 0 && words[place - 1] == "!";
        words.get(place + 1).filter(|_| !excepted).copied()
    };
    let target = match after("-j") {
        Some("DNAT") => after("--to-destination").map(str::to_owned),
        Some("REDIRECT") => after("--to-ports").map(|port| format!("port {port}")),
        _ => None,
    };
    let of_tcp = after("-p").is_none_or(|protocol| protocol == "tcp");
    let matched = after("--dport").or_else(|| after("--dports"));
    let (Some(target), Some(matched)) = (target, matched) else { return Vec::new() };
    if !of_tcp || ["OUTPUT", "POSTROUTING"].contains(&words[0]) {
        return Vec::new();
    }
    ports
        .iter()
        .filter(|port| target != format!("port {port}") && in_list(matched, **port))
        .map(|port| Redirection { port: *port, target: target.clone() })
        .collect()
}

/// Whether `80,443,8000:8999` contains a port.
fn in_list(list: &str, port: u16) -> bool {
    list.split(',').any(|part| {
        let (first, last) = part.split_once(':').unwrap_or((part, part));
        let bounds = (first.parse::<u16>(), last.parse::<u16>());
        matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&port))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(port: u16, target: &str) -> Redirection {
        Redirection { port, target: target.to_owned() }
    }

    /// As nftables 1.0.6 shows such a table.
    const RULESET: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
        {"chain": {"family": "ip", "table": "nat", "name": "pre", "hook": "prerouting"}},
        {"chain": {"family": "ip", "table": "nat", "name": "out", "hook": "output"}},
        {"rule": {"family": "ip", "table": "nat", "chain": "pre", "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 8080}},
            {"match": {"op": "==", "left": {"fib": {"result": "type"}}, "right": "local"}},
            {"dnat": {"addr": "10.88.0.2", "port": 80}}]}},
        {"rule": {"family": "ip", "table": "nat", "chain": "pre", "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}},
                "right": {"set": [80, {"range": [1000, 2000]}]}}},
            {"redirect": {"port": 1500}}]}},
        {"rule": {"family": "ip", "table": "nat", "chain": "pre", "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 53}},
            {"dnat": {"addr": "10.88.0.3"}}]}},
        {"rule": {"family": "ip", "table": "nat", "chain": "out", "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 443}},
            {"dnat": {"addr": "10.88.0.4", "port": 443}}]}}]}"#;

    #[test]
    fn rules_of_nftables_that_lead_a_port_elsewhere_are_found() {
        assert_eq!(in_nftables(RULESET, &[8080]), [to(8080, "10.88.0.2:80")]);
        assert_eq!(
            in_nftables(RULESET, &[80, 1000, 2001]),
            [to(80, "port 1500"), to(1000, "port 1500")]
        );
        assert_eq!(
            in_nftables(RULESET, &[53, 443, 1500, 9090]),
            [],
            "of UDP, from here, and to itself"
        );
        assert_eq!(in_nftables("no JSON", &[80]), []);
    }

    #[test]
    fn rules_of_iptables_that_lead_a_port_elsewhere_are_found() {
        let table = "*nat\n:DOCKER - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
                     -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80\n\
                     -A PREROUTING -p tcp -m multiport --dports 80,8000:8010 -j REDIRECT --to-ports 8081\n\
                     -A OUTPUT -p tcp -m tcp --dport 443 -j DNAT --to-destination 172.17.0.3:443\n\
                     -A PREROUTING -p tcp -m tcp ! --dport 22 -j DNAT --to-destination 172.17.0.4\nCOMMIT\n";
        assert_eq!(in_iptables(table, &[8080]), [to(8080, "172.17.0.2:80")]);
        assert_eq!(in_iptables(table, &[80, 8005]), [to(80, "port 8081"), to(8005, "port 8081")]);
        assert_eq!(in_iptables(table, &[443, 8081, 9090]), []);
    }
}
