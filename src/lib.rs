//! onedelete.
