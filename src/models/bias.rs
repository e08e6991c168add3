//! A bias.

use crate::memory::bias;

#[derive(Debug)]
pub struct Bias(bias::Bias);

impl Bias {
    /// The calling thread has it.
    #[allow(clippy::new_without_default)] // it takes a thread
    pub fn new() -> Self {
        let bias = bias::Bias::new();
        drop(bias.enter());
        Bias(bias)
    }

    /// Does something if the thread can be alone; tells whether it could.
    pub fn alone(&self, body: impl FnOnce()) -> bool {
        let alone = self.0.enter();
        alone.is_some().then(body).is_some()
    }

    pub fn is_shared(&self) -> bool {
        self.0.is_shared()
    }

    pub fn share(&self) {
        self.0.share();
    }
}
