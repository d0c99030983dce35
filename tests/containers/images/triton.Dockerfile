# Stand-in for NVIDIA's image of Triton: Debian, and the wheel's Triton 2.51 where the real image has its own. It has
# the Python backend alone, and of TensorRT a library that says a version. Nothing that it shows is said of the real one.
ARG DEBIAN_IMAGE
FROM ${DEBIAN_IMAGE} AS wheel
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev python3-venv
ARG TRITON_WHEEL
RUN python3 -m venv /venv && /venv/bin/pip install --no-cache-dir --no-deps "${TRITON_WHEEL}"
RUN mkdir -p /opt/tritonserver/lib \
 && cd /venv/lib/python3.11/site-packages \
 && cp -r pytriton/tritonserver/bin pytriton/tritonserver/backends /opt/tritonserver/ \
 && cp pytriton/tritonserver/python_backend_stubs/3.11/triton_python_backend_stub /opt/tritonserver/backends/python/ \
 && cp nvidia_pytriton.libs/* /opt/tritonserver/lib/
ARG TENSORRT
RUN echo "int getInferLibVersion(void) { return ${TENSORRT}; }" > nvinfer.c \
 && gcc -shared -o /opt/tritonserver/lib/libnvinfer.so.11 nvinfer.c

FROM ${DEBIAN_IMAGE}
RUN apt-get update && apt-get install --yes --no-install-recommends python3 libpython3.11
COPY --from=wheel /opt/tritonserver /opt/tritonserver
# The wheel's Triton needs numpy 1; torch comes from the machine's own wheels, where it has one for CPUs.
COPY wheels /etc/pip/wheels
RUN echo 'numpy<2' > /etc/pip/constraints.txt
ENV LD_LIBRARY_PATH=/opt/tritonserver/lib PIP_CONSTRAINT=/etc/pip/constraints.txt PIP_FIND_LINKS=/etc/pip/wheels
