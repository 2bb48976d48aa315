//! The words that all layers share: what one `attach` manages, and what is said of processes.

#![forbid(unsafe_code)]

mod endpoint;
mod identity;
mod limit;
mod loss;
mod moment;
mod process;
mod release;
#[cfg(feature = "schema")]
mod schema;
mod signal;
mod span;
pub mod users;

pub use endpoint::{Endpoint, LocalAddress};
pub use identity::{GenerationId, GenerationNumber, ServiceId, ServiceName, ServiceNameError};
pub use limit::{Limit, LimitError, Resource};
pub use loss::{Loss, LossError};
pub use moment::Moment;
pub use process::{Pid, ProcessIdentity, StartTime};
pub use release::{Release, ReleaseError};
pub use signal::{NoSignal, Signal};
pub use span::{OptionalSpan, Span};
