//! The power commands that both protocols have.

/// A command. There is no restart and no cycle among them: neither shows anybody that the machine was off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PowerCommand {
    /// On. May be sent again when its answer is lost.
    On,
    /// Hard off, at once. May be sent again when its answer is lost.
    Off,
    /// Asks the operating system to shut down. Sent once.
    GracefulOff,
    /// A diagnostic interrupt. Sent once.
    Interrupt,
}
