//! The parts of one reliable connection over a carrier that promises nothing.
