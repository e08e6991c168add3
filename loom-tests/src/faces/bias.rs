//! A bias.

use walchan_core::sync::bias;

#[derive(Debug)]
pub struct Bias(bias::Bias);

impl Default for Bias {
    fn default() -> Self {
        Bias(bias::Bias::new())
    }
}

impl Bias {
    /// Does something if the thread can be alone; returns whether it could.
    pub fn alone(&self, body: impl FnOnce()) -> bool {
        let alone = self.0.enter().expect("no model is refused a fence");
        alone.is_some().then(body).is_some()
    }

    /// The same by a thread that has been.
    pub fn alone_again(&self, body: impl FnOnce()) -> bool {
        let alone = self.0.enter_again();
        alone.is_some().then(body).is_some()
    }

    pub fn is_shared(&self) -> bool {
        self.0.is_shared()
    }

    pub fn share(&self) {
        self.0.share().expect("no model is refused a fence");
    }
}
