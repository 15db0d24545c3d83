//! Settings between keyword arguments and the core's [`StateConfig`]: a cold path, so `pythonize` does it.

use crate::error::{invalid, to_py, wrong_type};
use llmspell_state_persistence::StateConfig;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::PathBuf;

/// The setting that names the file.
const PATH: &str = "persistence_path";

/// The settings by name, and the file's path where it is given on its own.
pub(crate) fn from_py(path: Option<&Bound<'_, PyAny>>, options: &Bound<'_, PyDict>) -> PyResult<StateConfig> {
    let options = options.copy()?;
    // Taken out: a path object is more than a setting read as JSON could hold.
    let named = options.get_item(PATH)?.filter(|named| !named.is_none());
    if options.contains(PATH)? {
        options.del_item(PATH)?;
    }
    let options = pythonize::depythonize(&options).map_err(|e| invalid(format!("settings: {e}")))?;
    let mut config = StateConfig::from_options(options).map_err(to_py)?;
    config.persistence_path = match (path, &named) {
        (Some(_), Some(_)) => {
            return Err(invalid("path and persistence_path are two names of one setting; give one of them"));
        }
        (Some(path), None) | (None, Some(path)) => Some(path_of(path)?),
        (None, None) => None,
    };
    Ok(config)
}

/// A path keeps bytes that are not UTF-8, which a setting read as JSON could not.
fn path_of(path: &Bound<'_, PyAny>) -> PyResult<PathBuf> {
    path.extract().map_err(|error: PyErr| {
        let refused = error.is_instance_of::<PyTypeError>(path.py());
        if refused {
            wrong_type("path", "a str or an os.PathLike[str]", path)
        } else {
            invalid(format!("path is not a file name: {error}"))
        }
    })
}

/// The settings as a new `dict`.
pub(crate) fn to_py_dict<'py>(py: Python<'py>, config: &StateConfig) -> PyResult<Bound<'py, PyAny>> {
    Ok(pythonize::pythonize(py, config)?)
}
