from nann.python_backend.models.catalog import TritonPythonModel
