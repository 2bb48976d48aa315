//! The arguments of `load`.

use std::{ops::RangeInclusive, str::FromStr, time::Duration};

use clap::{Args, ValueEnum};

/// Put load on a server and count what goes wrong
///
/// Requests begin at their times, whether or not those before have been answered, and latencies count from these times: a
/// server that stalls shows it. Without any of --rate, --connections, --streams and --uploads, 100 new connections per
/// second. Needs no root and no agent, and has nothing to do with one.
///
/// A right answer over HTTP has status 200, a Content-Length, chunks, or the end of the connection as its end, and at most
/// 64 KiB but for streams. Over TCP it is a line, over UDP a datagram.
///
/// Which generation answered: over HTTP, the number in a header `Generation`, else a body that is nothing but a number;
/// over TCP and UDP, the last word of the answer, if it is a number.
///
/// Ends with 0 if every request was answered as it should be and the rate was kept, else with 1. The rate was kept if not
/// more than one request in a hundred was begun over 10 ms late or not at all. Interrupting it ends it early, with the
/// report.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  agent load localhost:8080 --rate 500 --connections 16 --duration 30s
  agent load localhost:8080 --connections 64 --request-rate 20000 --threads 2 -o json
  agent load 10.0.0.7:53 --protocol udp --line ping --rate 1000")]
pub(in crate::cli) struct LoadArguments {
    /// The server; of a name's addresses the first
    #[arg(value_name = "HOST:PORT")]
    pub(in crate::cli) target: String,

    /// How long requests are begun; those under way are waited for
    #[arg(long, value_name = "TIME", default_value = "10s")]
    #[arg(value_parser = humantime::parse_duration)]
    pub(in crate::cli) duration: Duration,

    /// Over how many threads the clients are spread
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(in crate::cli) threads: u32,

    #[command(flatten)]
    pub(in crate::cli) clients: ClientOptions,

    #[command(flatten)]
    pub(in crate::cli) exchange: ExchangeOptions,
}

/// Who asks, and how often.
#[derive(Debug, Args)]
#[command(next_help_heading = "Client options")]
pub(in crate::cli) struct ClientOptions {
    /// New connections per second, with one request each
    #[arg(long, value_name = "NUMBER")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=MOST_PER_SECOND))]
    pub(in crate::cli) rate: Option<u32>,

    /// The most of these at once; a request for which there is no room is begun late
    #[arg(long, value_name = "NUMBER", default_value_t = 8_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(in crate::cli) in_flight: u32,

    /// Connections that are kept, with one request after the other
    #[arg(long, value_name = "NUMBER")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(in crate::cli) connections: Option<u32>,

    /// Requests per second on all kept connections together, which take turns
    #[arg(long, value_name = "NUMBER", requires = "connections")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=MOST_PER_SECOND))]
    pub(in crate::cli) request_rate: Option<u32>,

    /// Without --request-rate: the pause of each kept connection between an answer and the next request [default: 20ms]
    #[arg(long, value_name = "TIME", conflicts_with = "request_rate")]
    #[arg(value_parser = humantime::parse_duration, requires = "connections")]
    pub(in crate::cli) think: Option<Duration>,

    /// Clients that read a large answer slowly (HTTP)
    #[arg(long, value_name = "NUMBER")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(in crate::cli) streams: Option<u32>,

    /// Clients that send a request body byte by byte, 100 bytes in 10 s (HTTP)
    #[arg(long, value_name = "NUMBER")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(in crate::cli) uploads: Option<u32>,

    /// Where new connections come from
    #[arg(long, value_name = "WHERE", value_enum)]
    #[arg(default_value_t = SourceChoice::Kernel)]
    pub(in crate::cli) source: SourceChoice,
}

/// What is asked, and what is a right answer.
#[derive(Debug, Args)]
#[command(next_help_heading = "Request options")]
pub(in crate::cli) struct ExchangeOptions {
    /// The language that the server speaks
    #[arg(long, value_enum, default_value_t = ProtocolChoice::Http)]
    pub(in crate::cli) protocol: ProtocolChoice,

    /// Over HTTP: the path of all requests but the following
    #[arg(long, default_value = "/")]
    #[arg(value_parser = path)]
    pub(in crate::cli) path: String,

    /// The path of the large answer, which has a length or chunks
    #[arg(long, value_name = "PATH", default_value = "/stream")]
    #[arg(value_parser = path)]
    pub(in crate::cli) stream_path: String,

    /// The path that takes the request bodies
    #[arg(long, value_name = "PATH", default_value = "/upload")]
    #[arg(value_parser = path)]
    pub(in crate::cli) upload_path: String,

    /// Over TCP and UDP: the line or datagram that is sent
    #[arg(long, value_name = "TEXT", default_value = "ping")]
    pub(in crate::cli) line: String,

    /// The generations that may answer, as in `2` or `2-3`; then each answer has to tell its generation
    #[arg(long, value_name = "NUMBER[-NUMBER]")]
    pub(in crate::cli) generations: Option<Generations>,

    /// How long a connection, and then each progress on it, is waited for
    #[arg(long, value_name = "TIME", default_value = "5s")]
    #[arg(value_parser = humantime::parse_duration)]
    pub(in crate::cli) timeout: Duration,
}

/// The language of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ProtocolChoice {
    /// HTTP/1
    Http,
    /// A line, answered by a line
    Tcp,
    /// A datagram, answered by a datagram
    Udp,
}

/// Where new connections come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum SourceChoice {
    /// From the address that the kernel chooses, which has some 28,000 ports towards a server
    Kernel,
    /// In turn from 127.0.0.2 to 127.0.0.250, for high rates towards 127.0.0.0/8
    Spread,
}

/// The generations that may answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Generations(pub(in crate::cli) RangeInclusive<u32>);

/// The text names no generations.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a number or two numbers in order, as in `2-3`, got `{0}`")]
pub(in crate::cli) struct NoGenerations(String);

impl FromStr for Generations {
    type Err = NoGenerations;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if first <= last => Ok(Self(first..=last)),
            _ => Err(NoGenerations(text.to_owned())),
        }
    }
}

/// A path that fits into a request line.
fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("a path begins with `/` and has no spaces".to_owned())
    }
}

const MOST_PER_SECOND: i64 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_are_a_number_or_two_in_order() {
        assert_eq!("2".parse(), Ok(Generations(2..=2)));
        assert_eq!("2-13".parse(), Ok(Generations(2..=13)));
        for text in ["", "x", "3-2", "-1", "1-", "1-2-3"] {
            assert_eq!(text.parse::<Generations>(), Err(NoGenerations(text.to_owned())));
        }
    }

    #[test]
    fn a_path_cannot_break_its_request() {
        assert_eq!(path("/a?b=c"), Ok("/a?b=c".to_owned()));
        for text in ["", "a", "/a b", "/a\r\nX: y"] {
            assert!(path(text).is_err(), "{text:?}");
        }
    }
}
