# The image of every service of Airflow in docker-compose.yml and of deploy/helm-values.yml.
FROM python:3.13-slim
RUN useradd --create-home --uid 50000 rowledger
WORKDIR /opt/rowledger
COPY requirements.txt requirements-scale.txt requirements.lock ./
RUN pip install --no-cache-dir -r requirements-scale.txt -c requirements.lock
COPY pyproject.toml README.md ./
COPY plugins plugins
RUN pip install --no-cache-dir --no-deps -e . && python -m compileall -q plugins
COPY config config
COPY dags dags
COPY include include
# Also from a checkout that only its owner may read.
RUN chmod -R a+rX .
# A new volume takes over the owner of the folder it is mounted at.
RUN for folder in /var/lib/rowledger /var/lib/rowledger/feeds /opt/airflow /opt/airflow/logs /run/rowledger; do \
        mkdir -p $folder && chown rowledger: $folder && chmod 750 $folder; done
USER rowledger
ENV AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/rowledger/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/rowledger/plugins \
    PYTHONPATH=/opt/rowledger/config:/opt/rowledger/plugins \
    ROWLEDGER_HOME=/var/lib/rowledger \
    ROWLEDGER_TEMPLATES=/opt/rowledger/include/templates
