//! What one `attach` manages, in the words that all layers share.

mod endpoint;
mod identity;

pub use endpoint::{Endpoint, LocalAddress};
pub use identity::{GenerationId, GenerationNumber, ServiceId, ServiceName, ServiceNameError};
