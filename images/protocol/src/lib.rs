//! What installer, agent and appliance say to each other, and what an image promises. No I/O, no clock.
