"""Rowledger on Airflow: the only part that imports Airflow.

``tasks``     the bodies of the DAGs' tasks
``metrics``   what tasks measure, through Airflow's own metrics
``executor``  Airflow's LocalExecutor, with workers that may be killed
``batch_task``  the decorator of tasks that work on one batch, and their link to its page
``desk``      the import desk behind Airflow's access control
``storage``   kept files in object storage
``secret_files``  the secrets of docker-compose.yml
``local``     a whole Airflow on this machine, for the demo and the tests
"""
