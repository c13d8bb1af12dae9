//! Tasks of the runtime, for futures of any type.
//!
//! The runtime compiles what it does with a task for each type of future, 5 KB of the program each time. So the futures
//! are boxed, and have one type for each kind of result.

use std::pin::Pin;

use tokio::task::JoinHandle;

/// A future that can be spawned.
pub type BoxedFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Boxes a future, for example for a `JoinSet`.
pub fn boxed<T>(future: impl Future<Output = T> + Send + 'static) -> BoxedFuture<T> {
    Box::pin(future)
}

/// Spawns a task. Needs a runtime.
pub fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(boxed(future))
}
