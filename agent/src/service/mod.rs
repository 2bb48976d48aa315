//! What one `attach` manages, in the words that all layers share.

mod endpoint;
mod identity;
mod release;
mod signal;

pub use endpoint::{Endpoint, LocalAddress};
pub use identity::{GenerationId, GenerationNumber, ServiceId, ServiceName, ServiceNameError};
pub use release::{Release, ReleaseError};
pub use signal::{NoSignal, Signal};
